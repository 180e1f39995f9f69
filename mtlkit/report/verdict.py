"""Verdict: what a comparison comes to in words, and what a reader has to know first."""

from collections.abc import Iterator, Sequence
from typing import Any

from mtlkit.report.compare import mean
from mtlkit.report.delta import Comparison, Delta
from mtlkit.report.group import Group, measure
from mtlkit.report.parts import listed, number, plural

LEVEL = 0.05
"""p at and below which a difference is called one."""


def headline(groups: Sequence[Group], found: Comparison) -> str:
    """Which recipe is best, and whether that can be told from chance."""
    runs = [run for group in groups for run in group.runs]
    start = f"{plural(len(runs), 'run')} of {plural(len(groups), 'recipe')}."
    if not any(group.by_seed for group in groups):
        return f"{start} None of them finished."
    if found.deltas:
        return f"{start} {_best_delta(found)}"
    return f"{start} {_best_scores(groups)} Whether training together pays cannot be said here."


def _best_delta(found: Comparison) -> str:
    best = max(found.deltas, key=lambda delta: delta.interval_by_task.mean)
    value = best.interval_by_task.mean
    verb = "gains" if value > 0 else "loses"
    rank = "The most is gained by " if value > 0 else "The least is lost by "
    first = f"{rank}{best.label}: it" if len(found.deltas) > 1 else best.label
    says = f"{first} {verb} {abs(value):.1f} % against single tasks (Δm b)"
    return f"{says}; {chance(best, found.least_p)}."


def chance(delta: Delta, least: float | None) -> str:
    """Whether a Δm is told from chance, and never more than the seeds allow to say."""
    if delta.p_by_task is None or least is None:
        pairs = len(delta.by_task) if delta.paired else 0
        return f"{plural(pairs, 'paired seed')} cannot tell that from chance"
    if least > LEVEL:
        return (f"{plural(len(delta.by_task), 'seed')} cannot tell that from chance "
                f"(p cannot go below {least:.2g})")  # fmt: skip
    told = "chance alone would hardly do that" if delta.p_by_task <= LEVEL else (
        "that is not told from chance")  # fmt: skip
    return f"{told} (p = {delta.p_by_task:.2g})"


def _best_scores(groups: Sequence[Group]) -> str:
    """The best group by each primary metric; only among those that can be compared."""
    finished = [g for g in groups if g.by_seed]
    first = max(finished, key=lambda g: len(g.tasks))
    rivals = [g for g in finished if measure(g.runs[0]) == measure(first.runs[0])]
    words = []
    for key in first.runs[0].primary.values():
        sign = first.runs[0].signs[key] or 1
        means = [(sign * mean([v for _, v in g.values(key)]), g) for g in rivals if g.values(key)]
        if len(means) > 1:
            value, best = max(means, key=lambda pair: pair[0])
            words.append(f"{key} {number(sign * value)} by {best.label}")
    return f"The best means on test: {'; '.join(words)}." if words else ""


def notes(groups: Sequence[Group], found: Comparison) -> list[str]:
    """What a reader has to know before comparing."""
    return [*_different(groups), *_unfinished(groups), *_twice(groups), *found.notes]


def _different(groups: Sequence[Group]) -> Iterator[str]:
    measures: list[tuple[Any, list[str]]] = []
    for g in groups:
        labels = next((m for key, m in measures if key == measure(g.runs[0])), None)
        if labels is None:
            measures.append((measure(g.runs[0]), [g.label]))
        else:
            labels.append(g.label)
    if len(measures) > 1:
        sets = "; ".join(", ".join(labels) for _, labels in measures)
        yield (f"These runs are of {len(measures)} different data or image sizes, whose numbers "
               f"are not comparable and are never put together: {sets}.")  # fmt: skip


def _unfinished(groups: Sequence[Group]) -> Iterator[str]:
    gone = [run.name for g in groups for run in g.runs if not run.finished]
    if gone:
        yield f"Not finished, and so in no mean: {listed(gone)}."


def _twice(groups: Sequence[Group]) -> Iterator[str]:
    for g in groups:
        done = sum(run.finished for run in g.runs)
        if done > len(g.by_seed):
            yield f"{g.label} has several runs of one seed; the last one given counts."
