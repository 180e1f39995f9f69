"""Interval: means of numbers that vary from look to look, and how sure they are."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mtlkit.student import t_quantile


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
    return t_quantile(int(count) - 1) / math.sqrt(count) if count > 1 else math.nan
