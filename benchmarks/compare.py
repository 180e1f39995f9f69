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
"""By metric."""
Directions = Mapping[str, bool]
"""Whether higher is better, by metric."""


class Interval(NamedTuple):
    """A mean and the ends of an interval around it."""

    mean: float
    low: float
    high: float


def relative_gain(value: float, base: float, *, higher_is_better: bool) -> float:
    """Relative improvement on ``base`` in percent, higher is better; NaN where ``base`` is 0."""
    change = 100 * (value - base) / abs(base) if base else math.nan
    return change if higher_is_better else -change


def delta_flat(values: Scores, baseline: Scores, higher_is_better: Directions) -> float:
    """Form (a): mean over all metrics of the relative loss in percent, lower is better.

    Args:
        values: of the network for several tasks.
        baseline: of networks for one task each.
        higher_is_better: names the metrics that count.

    Reference: ``delta_fn`` of the authors' code of Nash-MTL, and the papers that follow it.
    """
    return -_mean(_gains(values, baseline, higher_is_better))


def delta_by_task(
    values_by_task: Mapping[str, Scores],
    baseline_by_task: Mapping[str, Scores],
    higher_is_better: Mapping[str, Directions],
) -> float:
    """Form (b): mean over each task's metrics, then over tasks, in percent, higher is better.

    Args:
        values_by_task: of the network for several tasks.
        baseline_by_task: of networks for one task each.
        higher_is_better: names the tasks and metrics that count.

    Reference: ``count_improvement`` of LibMTL.
    """
    return _mean(
        [
            _mean(_gains(values_by_task[task], baseline_by_task[task], directions))
            for task, directions in higher_is_better.items()
        ]
    )


def _gains(values: Scores, baseline: Scores, higher_is_better: Directions) -> list[float]:
    return [
        relative_gain(values[key], baseline[key], higher_is_better=higher)
        for key, higher in higher_is_better.items()
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and Student's interval; a single value has none, so its ends are NaN."""
    mean, number = _mean(values), len(values)
    if number < 2:
        return Interval(mean, math.nan, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (number - 1)
    half = t_quantile((1 + confidence) / 2, number - 1) * math.sqrt(variance / number)
    return Interval(mean, mean - half, mean + half)


def t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t stays below with a probability in [0.5, 1), by bisection."""
    low, high = 0.0, 1.0
    while _t_below(high, freedom) < probability:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, freedom) < probability else (low, middle)
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


def smallest_p(number: int) -> float:
    """What :func:`sign_flip` can reach at best with so many differences."""
    return float(2.0 ** (1 - number))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Each p corrected for the number of tests, so that the chance of any false alarm is kept.

    Reference: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    corrected, largest = {}, 0.0
    for rank, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p) - rank) * value))
        corrected[name] = largest
    return {name: corrected[name] for name in p}
