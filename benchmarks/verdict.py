"""Verdict: whether the lines of a report differ from what they are held against by more than luck."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.compare import holm, sign_flip, smallest_p
from benchmarks.results import Line

LEVEL = 0.05
"""Below which a corrected p is called significant."""


@dataclass(frozen=True)
class Family:
    """Tests of one question on several lines, corrected together.

    Args:
        p: of each line that could be tested, by its name.
        corrected: the same after Holm's correction.
        least: the smallest p that the number of seeds can give.
    """

    p: Mapping[str, float]
    corrected: Mapping[str, float]
    least: float

    @property
    def hopeless(self) -> bool:
        """Whether not even the smallest p is significant after the correction."""
        return bool(self.p) and min(1.0, len(self.p) * self.least) > LEVEL

    @property
    def seeds_needed(self) -> int:
        """So that the best line of as many can be called significant."""
        seeds = 2
        while len(self.p) * smallest_p(seeds) > LEVEL:
            seeds += 1
        return seeds


def family(differences: Mapping[str, Sequence[float]]) -> Family:
    """Sign-flip tests of paired differences, by line; those with fewer than two are left out."""
    p = {name: sign_flip(values) for name, values in differences.items() if len(values) > 1}
    least = min((smallest_p(len(differences[name])) for name in p), default=1.0)
    return Family(p, holm(p), least)


def tested(lines: Sequence[Line], reference: str | None = None) -> list[Line]:
    """The lines that are tested: none twice, no baseline, none that only stood for choice."""
    seen: set[tuple[str, ...]] = set()
    chosen = []
    for line in lines:
        runs = tuple(line.row.runs)
        if line.candidate or line.is_single or line.name == reference or runs in seen:
            continue
        seen.add(runs)
        chosen.append(line)
    return chosen


def against_single(lines: Sequence[Line]) -> Family:
    """Δm (b) of each line against 0."""
    return family({line.name: list(line.by_task.values()) for line in tested(lines)})


def target(lines: Sequence[Line], metric: str) -> Family:
    """The gain of one metric over the single task."""
    return family({line.name: list(line.gain(metric).values()) for line in tested(lines)})


def against_row(lines: Sequence[Line], reference: Line) -> tuple[Family, dict[str, list[float]]]:
    """Δm (b) of each line less that of another, seed by seed; and these differences."""
    differences = {}
    for line in tested(lines, reference.name):
        if set(line.row.single) == set(reference.row.single):
            common = line.by_task.keys() & reference.by_task.keys()
            differences[line.name] = [
                line.by_task[seed] - reference.by_task[seed] for seed in sorted(common)
            ]
    return family(differences), differences
