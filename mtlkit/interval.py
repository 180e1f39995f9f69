"""Interval: means of numbers that vary from look to look, and how sure they are."""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean for each place of an array.

    Args:
        mean: of the numbers that are known; NaN where none is.
        half: half the width of its 95 % interval; NaN for fewer than two numbers.
        sd: standard deviation of the numbers; NaN likewise.
        known: how many numbers it is of.
    """

    mean: Tensor
    half: Tensor
    sd: Tensor
    known: Tensor

    @property
    def sure(self) -> Tensor:
        """Where the interval leaves zero out."""
        return self.mean.abs() > self.half


def estimate(values: Tensor) -> Estimate:
    """Mean and interval over the first dimension, by Student's t; NaN counts as not known.

    The numbers are taken to be independent of each other.

    Args:
        values: ``[N, ...]``.
    """
    values = values.double()
    count = values.isfinite().sum(0)
    values = torch.where(values.isfinite(), values, torch.nan)
    mean = values.nanmean(0)
    freedom = torch.where(count > 1, count - 1, torch.nan)
    sd = ((values - mean).square().nansum(0) / freedom).sqrt()
    factor = count.clone().double().apply_(_factor).to(sd)
    return Estimate(mean, factor * sd, sd, count)


def _factor(count: float) -> float:
    return quantile(int(count) - 1) / math.sqrt(count) if count > 1 else math.nan


@cache
def quantile(freedom: int) -> float:
    """What the absolute value of Student's t stays below with a probability of 95 %.

    Args:
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < LEVEL else (low, middle)
    return low


def _within(t: float, freedom: int) -> float:
    """Probability of an absolute value below ``t``: Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term, total = math.cos(angle) ** odd, 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
