"""Δm: how much better or worse than single-task networks, in the two forms papers print.

The two are no rescaled versions of each other: the same predictions may be 5.59 worse by one and
0.88 better by the other.
"""

from collections.abc import Mapping

Scores = Mapping[str, float]
"""By ``<task>/<metric>``."""


def relative_gain(value: float, base: float, *, higher_is_better: bool) -> float:
    """Relative improvement on ``base`` in percent, higher is better."""
    change = 100 * (value - base) / base
    return change if higher_is_better else -change


def gains(scores: Scores, base: Scores, higher_is_better: Mapping[str, bool]) -> dict[str, float]:
    """:func:`relative_gain` of every metric in ``higher_is_better``."""
    return {
        key: relative_gain(scores[key], base[key], higher_is_better=higher)
        for key, higher in higher_is_better.items()
    }


def delta_flat(scores: Scores, base: Scores, higher_is_better: Mapping[str, bool]) -> float:
    """Form (a): mean over all metrics of the relative loss in percent, lower is better.

    Reference: ``delta_fn`` of the authors' code of Nash-MTL, and the papers that follow it.
    """
    values = gains(scores, base, higher_is_better).values()
    return -sum(values) / len(values)


def delta_by_task(scores: Scores, base: Scores, higher_is_better: Mapping[str, bool]) -> float:
    """Form (b): mean over each task's metrics, then over tasks, in percent, higher is better.

    Reference: ``count_improvement`` of LibMTL.
    """
    by_task: dict[str, list[float]] = {}
    for key, gain in gains(scores, base, higher_is_better).items():
        by_task.setdefault(key.split("/")[0], []).append(gain)
    means = [sum(values) / len(values) for values in by_task.values()]
    return sum(means) / len(means)
