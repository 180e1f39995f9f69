"""Compare: relative gains, intervals and tests over seeds. Plain numbers in, plain numbers out."""

import math
import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

from mtlkit.student import t_quantile

Scores = Mapping[str, float]
"""By ``<task>/<metric>``."""

_MOST_EXACT = 16
"""Pairs up to which all sign flips are gone through."""
_DRAWS = 100_000


def relative_gain(value: float, base: float, *, higher_is_better: bool) -> float:
    """Relative improvement on ``base`` in percent, higher is better; NaN where the base is 0."""
    if base == 0:
        return math.nan
    change = 100 * (value - base) / abs(base)
    return change if higher_is_better else -change


def gains(scores: Scores, base: Scores, higher_is_better: Mapping[str, bool]) -> dict[str, float]:
    """:func:`relative_gain` of every metric in ``higher_is_better``."""
    return {
        key: relative_gain(scores[key], base[key], higher_is_better=higher)
        for key, higher in higher_is_better.items()
    }


def delta_flat(scores: Scores, base: Scores, higher_is_better: Mapping[str, bool]) -> float:
    """Δm (a): mean over all metrics of the relative loss in percent, lower is better.

    Args:
        scores: of the network for all tasks.
        base: of the networks for one task each.
        higher_is_better: of every metric that counts.

    Reference: ``delta_fn`` of the authors' code of Nash-MTL, and the papers that follow it.
    """
    values = gains(scores, base, higher_is_better).values()
    return -sum(values) / len(values)


def delta_by_task(scores: Scores, base: Scores, higher_is_better: Mapping[str, bool]) -> float:
    """Δm (b): mean over each task's metrics, then over tasks, in percent, higher is better.

    It is no rescaled (a): the same predictions may be 5.59 worse by (a) and 0.88 better by (b).

    Args:
        scores: of the network for all tasks.
        base: of the networks for one task each.
        higher_is_better: of every metric that counts.

    Reference: ``count_improvement`` of LibMTL.
    """
    by_task: dict[str, list[float]] = {}
    for key, gain in gains(scores, base, higher_is_better).items():
        by_task.setdefault(key.split("/")[0], []).append(gain)
    means = [mean(values) for values in by_task.values()]
    return mean(means)


def mean(values: Sequence[float]) -> float:
    """Of at least one value."""
    return sum(values) / len(values)


class Interval(NamedTuple):
    """A mean and where it lies with 95 % confidence; None for fewer than two values."""

    mean: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether all of it is on one side of zero."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student's interval of independent values, at least one."""
    middle, n = mean(values), len(values)
    if n < 2:
        return Interval(middle, None, None)
    deviation = math.sqrt(sum((value - middle) ** 2 for value in values) / (n - 1))
    half = t_quantile(n - 1) * deviation / math.sqrt(n)
    return Interval(middle, middle - half, middle + half)


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the mean of paired differences, if each might as well have the other sign.

    Exact up to 16 pairs, else from 100,000 fixed random draws. With n pairs it cannot go below
    :func:`smallest_p`.
    """
    n, observed = len(differences), abs(sum(differences))
    enough = observed * (1 - 1e-12)  # the observed signs count, whatever the order of the sum
    if n <= _MOST_EXACT:
        sums = (sum(map(math.prod, zip(differences, signs, strict=True)))
                for signs in product((1, -1), repeat=n))  # fmt: skip
        return sum(abs(total) >= enough for total in sums) / 2.0**n
    draw = random.Random(0)
    hits = sum(abs(sum(draw.choice((-x, x)) for x in differences)) >= enough for _ in range(_DRAWS))
    return (1 + hits) / (1 + _DRAWS)


def smallest_p(pairs: int, comparisons: int = 1) -> float:
    """The least that :func:`sign_flip` can give, with Holm's correction for several of them."""
    return min(1.0, comparisons * 2.0 ** (1 - pairs))


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of several tests at once, corrected by Holm's method, in their order."""
    corrected, least = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = least
    return corrected
