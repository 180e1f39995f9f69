"""How much better several runs are than others, and whether that could be chance.

Pure functions of numbers. Two forms of Δm are here because papers print both without saying which:
they are no rescaled versions of each other, and the same predictions may be 5.59 worse by one and
0.88 better by the other.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Scores = Mapping[str, float]
"""By ``<task>/<metric>``."""


class Interval(NamedTuple):
    """A mean, and where it lies with 95 % confidence; a single value does not tell that."""

    mean: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether all of it is on one side of 0."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


def relative_gain(value: float, base: float, *, higher_is_better: bool) -> float:
    """Relative improvement on ``base`` in percent, higher is better; NaN where ``base`` is 0."""
    change = 100 * (value - base) / abs(base) if base else math.nan
    return change if higher_is_better else -change


def delta_flat(scores: Scores, base: Scores, higher_is_better: Mapping[str, bool]) -> float:
    """Form (a): mean over all metrics of the relative loss in percent, lower is better.

    Args:
        scores: of the network for several tasks.
        base: of networks for one task each.
        higher_is_better: of every metric that counts.

    Reference: ``delta_fn`` of the authors' code of Nash-MTL, and the papers that follow it.
    """
    return -_mean(list(gains(scores, base, higher_is_better).values()))


def delta_by_task(scores: Scores, base: Scores, higher_is_better: Mapping[str, bool]) -> float:
    """Form (b): mean over each task's metrics, then over tasks, in percent, higher is better.

    Args:
        scores: of the network for several tasks.
        base: of networks for one task each.
        higher_is_better: of every metric that counts.

    Reference: ``count_improvement`` of LibMTL.
    """
    by_task: dict[str, list[float]] = {}
    for key, gain in gains(scores, base, higher_is_better).items():
        by_task.setdefault(key.partition("/")[0], []).append(gain)
    return _mean([_mean(values) for values in by_task.values()])


def gains(scores: Scores, base: Scores, higher_is_better: Mapping[str, bool]) -> dict[str, float]:
    """:func:`relative_gain` of every metric that counts."""
    return {
        key: relative_gain(scores[key], base[key], higher_is_better=higher)
        for key, higher in higher_is_better.items()
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student's 95 % interval of independent values, at least one."""
    mean, number = _mean(values), len(values)
    if number < 2:
        return Interval(mean, None, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (number - 1)
    half = t_quantile(number - 1) * math.sqrt(variance / number)
    return Interval(mean, mean - half, mean + half)


def t_quantile(freedom: int) -> float:
    """What Student's t stays below with probability 0.975, by bisection; 12.7 at most."""
    low, high = 0.0, 16.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, freedom) < 0.975 else (low, middle)
    return high


def _t_below(t: float, freedom: int) -> float:
    """Student's distribution function for t >= 0 and whole degrees of freedom.

    Reference: Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):  # cos^k with coefficients 1, 1/2, 3/8 or 1, 2/3, 8/15
        total += term
        term *= cosine**2 * k / (k + 1)
    total *= math.sin(angle)
    return 0.5 + ((angle + total) / math.pi if odd else total / 2)


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of paired differences: how often random signs give a mean at least as far from 0.

    All 2^n signs are tried, so the smallest p that n differences can give is 2^(1 - n).
    """
    reached = abs(math.fsum(differences)) * (1 - 1e-12)  # equal sums may differ by rounding
    flips = itertools.product((1, -1), repeat=len(differences) - 1)  # the rest mirrors these
    sums = [
        abs(math.fsum(s * d for s, d in zip((1, *signs), differences, strict=True)))
        for signs in flips
    ]
    return sum(total >= reached for total in sums) / len(sums)


def smallest_p(pairs: int, comparisons: int = 1) -> float:
    """The least that :func:`sign_flip` can give, corrected for several comparisons."""
    return min(1.0, comparisons * 2.0 ** (1 - pairs))


def holm(p: Sequence[float]) -> list[float]:
    """Each p corrected for the number of tests, so that the chance of any false alarm is kept.

    Reference: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    corrected, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected
