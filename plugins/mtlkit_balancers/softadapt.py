"""SoftAdapt: weights from the losses' recent slopes."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._history import History
from mtlkit_balancers._positive import positive

SMALLEST_SLOPE = 1e-8
"""Slopes whose sum is a smaller part of the losses' sum are not blown up to 1."""


class SoftAdapt(LossBalancer):
    """Tasks whose loss falls least, or rises, get the larger weights.

    With s the slope of a task's last ``window`` mean losses and L their mean, the weights are,
    adding up to 1 over the active tasks,

    - ``original``: softmax(beta s);
    - ``loss-weighted``: proportional to L exp(beta s);
    - ``normalised``: softmax(beta s / sum of abs(s)), which no common unit of the losses changes.

    A task with a label in less than ``window`` of the points has s = 0, so that the weights, but
    for L, are equal at first. The authors' code starts with weights of 1 instead, and a step
    ``window`` points later is T times shorter. It divides by the sum of s, which explodes where
    slopes cancel, and its coefficients give the slope at the oldest point; here it is the slope
    at the newest.

    Args:
        form: one of the three above.
        beta: above 0, tasks that get on badly are favoured, below 0, those that get on well; the
            slopes' unit is the losses' per point.
        window: points of a task's history, 2 or more. The slope is the backward difference that is
            exact for polynomials through all of them; more points are more sensitive to noise.
        every: optimiser steps whose mean is a point, 1 or more; 0 is an epoch. The weights change
            as often.

    Raises:
        ValueError: ``form`` is none of the three, ``beta`` is not finite, ``window`` less than 2
            or ``every`` negative.

    Reference: Heydari, Thompson, Mehmood, "SoftAdapt: Techniques for Adaptive Loss Weighting of
        Neural Networks with Multi-Part Loss Functions", 2019, arXiv 1912.12355, section 3.1.
    """

    linear = True
    coefficients: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        /,
        *,
        form: Literal["original", "loss-weighted", "normalised"] = "original",
        beta: float = 0.1,
        window: int = 5,
        every: int = 0,
    ) -> None:
        super().__init__(tasks)
        if form not in ("original", "loss-weighted", "normalised"):
            raise ValueError(f"form must be original, loss-weighted or normalised, but is {form}")
        if not math.isfinite(beta):
            raise ValueError(f"beta must be finite, but is {beta}")
        if window < 2:
            raise ValueError(f"window must be 2 or more, but is {window}")
        if every < 0:
            raise ValueError(f"every must be 0 or more, but is {every}")
        self.form = form
        self.beta = beta
        self.every = every
        self.history = History(len(self.tasks), window)
        self.register_buffer("coefficients", backward_difference(window), persistent=False)

    def weights(self, stats: StepStats) -> Tensor:
        """As the form says, over the active tasks: ``[A]``."""
        points = self.history.means(stats, self._period(stats))
        slopes = (self.coefficients @ points).nan_to_num(nan=0.0)
        levels = _levels(points)
        if self.form == "normalised":
            slopes = slopes / (slopes.abs().sum() + SMALLEST_SLOPE * levels.sum())
        exponents = self.beta * slopes
        if self.form == "loss-weighted":
            exponents = exponents + levels.log()
        return torch.softmax(exponents, dim=0).to(stats.losses)

    def commit(self, stats: StepStats, weights: Tensor) -> None:
        """Add this step's losses to the point that is being made."""
        self.history.add(stats, self._period(stats))

    def _period(self, stats: StepStats) -> int:
        return stats.step // self.every if self.every else stats.epoch


def backward_difference(num_points: int) -> Tensor:
    """``[num_points]`` float64: what gives the slope at the newest point, which is the first.

    With N the backward difference, the derivative is -log(1 - N) = N + N^2 / 2 + N^3 / 3 + ...,
    and N^k has the binomial coefficients of (1 - shift)^k.
    """
    order = num_points - 1
    newest = sum(1 / k for k in range(1, num_points))
    older = [(-1) ** k * math.comb(order, k) / k for k in range(1, num_points)]
    return torch.tensor([newest, *older], dtype=torch.float64)


def _levels(points: Tensor) -> Tensor:
    """``[A]``: the mean of each task's points; of the other tasks' means where it has none."""
    means = points.nanmean(dim=0)
    means = torch.where(means.isnan(), means.nanmean(), means).nan_to_num(nan=1.0)
    return positive(means)
