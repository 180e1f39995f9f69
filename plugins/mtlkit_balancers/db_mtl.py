"""Dual balancing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import Columns, LossBalancer, StepStats
from mtlkit_balancers._columns import lengths, spread
from mtlkit_balancers._positive import positive

SMALLEST = 1e-8
"""Length, relative to the longest, up to which a gradient is not lengthened in full."""


class DBMTL(LossBalancer):
    """Smoothed gradients of the losses' logarithms, all made as long as the longest of them.

    No loss's unit matters. A loss below 1e-8 counts as 1e-8. A task's own parameters get the
    gradient of the logarithm.

    As in the authors' code the averages start from zero, so the step is shorter at first. A task's
    average stays as it is in steps without its labels, and its ``t`` counts the steps with them.
    Memory: one more vector of the shared parameters per task, unless ``beta`` is 0.

    Args:
        beta: part of the moving average that is kept in step t, times t^-beta_sigma; in [0, 1).
        beta_sigma: how fast the smoothing fades, 0 or more; 0 is never.

    Raises:
        ValueError: ``beta`` is outside [0, 1), or ``beta_sigma`` below 0.

    Reference: Lin et al., "Dual-Balancing for Multi-Task Learning", 2023, arXiv 2308.12029,
        algorithm 1.
    """

    needs = "columns"
    steps: Tensor

    def __init__(
        self, tasks: Sequence[str], /, *, beta: float = 0.9, beta_sigma: float = 0.0
    ) -> None:
        super().__init__(tasks)
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be in [0, 1), but is {beta}")
        if not beta_sigma >= 0:
            raise ValueError(f"beta_sigma must be 0 or more, but is {beta_sigma}")
        self.beta = beta
        self.beta_sigma = beta_sigma
        self.register_buffer("steps", torch.zeros(len(self.tasks), dtype=torch.int64))

    def combine(self, rows_Ap: Tensor, stats: StepStats, columns: Columns) -> Tensor:
        """The sum of the averages, equally long: ``[p]``."""
        rows_Ap *= self.weights(stats).to(rows_Ap)[:, None]  # of the logarithms
        if not self.beta:
            return self._stretch(lengths(rows_Ap, columns)).to(rows_Ap) @ rows_Ap
        self.steps[stats.index] += 1
        steps = self.steps[stats.index].tolist()
        averages_Tp = columns.state("average")
        for task, row_p, step in zip(stats.index.tolist(), rows_Ap, steps, strict=True):
            averages_Tp[task].lerp_(row_p, 1 - self.beta / step**self.beta_sigma)
        stretch_A = self._stretch(lengths(averages_Tp, columns)[stats.index])
        return spread(stretch_A, stats.index, averages_Tp) @ averages_Tp

    def _stretch(self, lengths_A: Tensor) -> Tensor:
        """What makes them as long as the longest: ``[A]``."""
        longest = float(lengths_A.max())
        if not longest:
            return torch.ones_like(lengths_A)
        return longest / lengths_A.clamp(min=SMALLEST * longest)

    def weights(self, stats: StepStats) -> Tensor:
        """1 / L: ``[A]``."""
        return 1 / positive(stats.losses)
