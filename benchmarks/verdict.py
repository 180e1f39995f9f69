"""Verdict: whether lines of a report differ from what they are held against by more than luck."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.results import Line
from mtlkit.report.compare import holm, sign_flip, smallest_p

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
        """So that a line can be called significant at all."""
        return next(n for n in itertools.count(2) if smallest_p(n, len(self.p)) <= LEVEL)


def family(differences: Mapping[str, Sequence[float]]) -> Family:
    """Sign-flip tests of paired differences, by line; those with fewer than two are left out."""
    p = {name: sign_flip(values) for name, values in differences.items() if len(values) > 1}
    least = min((smallest_p(len(differences[name])) for name in p), default=1.0)
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    return Family(p, corrected, least)


def comparable(lines: Sequence[Line]) -> list[Line]:
    """The lines that are tested: none twice, no baseline, none that only stood for choice."""
    seen: set[tuple[str, ...]] = set()
    chosen = []
    for line in lines:
        runs = tuple(line.row.runs)
        if line.candidate or line.is_single or runs in seen:
            continue
        seen.add(runs)
        chosen.append(line)
    return chosen


def against_single(lines: Sequence[Line]) -> Family:
    """Δm (b) of each line against 0."""
    return family({line.name: list(line.by_task.values()) for line in comparable(lines)})


def target_against_single(lines: Sequence[Line], target: str) -> Family:
    """What each line adds to one metric of the single task."""
    return family({line.name: list(line.gain(target).values()) for line in comparable(lines)})


def differences(
    lines: Sequence[Line], reference: Line, target: str | None
) -> dict[str, list[float]]:
    """Each line less another, seed by seed: in the target metric, or else in Δm (b).

    Lines with other tasks have another Δm, and are left out of the latter.
    """
    found = {}
    for line in comparable(lines):
        alike = target is not None or set(line.row.single) == set(reference.row.single)
        if line.row.runs != reference.row.runs and alike:
            mine, theirs = _by_seed(line, target), _by_seed(reference, target)
            found[line.name] = [
                mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())
            ]
    return found


def _by_seed(line: Line, target: str | None) -> dict[int, float]:
    if target is None:
        return line.by_task
    return {seed: pair.run.test[target] for seed, pair in line.pairs.items()}
