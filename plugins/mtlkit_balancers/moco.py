"""Multi-objective gradient correction."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mtlkit import Columns, LossBalancer, StepStats
from mtlkit_balancers._columns import parts, spread

Projection = Literal["softmax", "simplex"]

SMALLEST = 1e-8
"""Length, relative to the longest, up to which a gradient is not lengthened in full."""


class MoCo(LossBalancer):
    """Smoothed gradients, with weights that go toward their shortest combination step by step.

    Each gradient is first made as long as its loss. In a task's step t its average y moves by
    beta t^-beta_sigma toward that, and its weight by gamma t^-gamma_sigma against the slope of
    lambda'YY'lambda / 2 + rho lambda'lambda / 2.

    The paper projects the weights back on the simplex. The authors' code, which the published
    results are from, takes their softmax instead. As the weights are below 1 this pulls them back
    toward equal ones, and no weight exceeds e times another's unless gamma is large or the losses
    are; ``projection`` has both. The unit of the losses matters.

    In steps without a task's labels its average and its share stay; the others' weights sum to 1.
    As in the authors' code a task's own parameters get their raw gradient. Memory: one more vector
    of the shared parameters per task.

    Args:
        beta: step of the averages, in (0, 1].
        beta_sigma: how fast that shrinks, 0 or more.
        gamma: step of the weights, 0 or more.
        gamma_sigma: how fast that shrinks, 0 or more.
        rho: pull toward equal weights, 0 or more.
        projection: ``softmax`` or ``simplex``, the nearest point on the simplex.

    Raises:
        ValueError: an option is outside.

    Reference: Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably
        Convergent Approach", ICLR 2023, arXiv 2210.12624, algorithm 1; options as in LibMTL.
    """

    needs = "columns"
    heads = "raw"
    shares: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        /,
        *,
        beta: float = 0.5,
        beta_sigma: float = 0.5,
        gamma: float = 0.1,
        gamma_sigma: float = 0.5,
        rho: float = 0.0,
        projection: Projection = "softmax",
    ) -> None:
        super().__init__(tasks)
        if not 0 < beta <= 1:
            raise ValueError(f"beta must be in (0, 1], but is {beta}")
        others = {
            "beta_sigma": beta_sigma,
            "gamma": gamma,
            "gamma_sigma": gamma_sigma,
            "rho": rho,
        }
        for name, value in others.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more and finite, but is {value}")
        if projection not in get_args(Projection):
            known = " or ".join(get_args(Projection))
            raise ValueError(f"projection must be {known}, but is {projection!r}")
        self.beta = beta
        self.beta_sigma = beta_sigma
        self.gamma = gamma
        self.gamma_sigma = gamma_sigma
        self.rho = rho
        self.projection = projection
        count = len(self.tasks)
        self.register_buffer("shares", torch.full((count,), 1 / count, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(count, dtype=torch.int64))

    def combine(self, rows_Ap: Tensor, stats: StepStats, columns: Columns) -> Tensor:
        """The weighted sum of the averages: ``[p]``."""
        self.steps[stats.index] += 1
        steps_A = self.steps[stats.index].to(stats.losses)
        averages_Tp = columns.state("average")
        scales_A = self._scales(stats)
        rates_A = self.beta / steps_A**self.beta_sigma
        for i, task in enumerate(stats.index.tolist()):
            averages_Tp[task].lerp_(rows_Ap[i].mul_(float(scales_A[i])), float(rates_A[i]))
        weights_A = self.weights(stats)
        slopes_A = self._products(averages_Tp, weights_A, stats, columns) + self.rho * weights_A
        weights_A = self._project(weights_A - self.gamma / steps_A**self.gamma_sigma * slopes_A)
        total = self.shares[stats.index].sum()
        self.shares[stats.index] = total * weights_A.to(self.shares)
        return spread(weights_A, stats.index, averages_Tp) @ averages_Tp

    def weights(self, stats: StepStats) -> Tensor:
        """lambda, of the active tasks alone: ``[A]``, 0 or more, sums to 1."""
        shares_A = self.shares[stats.index].to(stats.losses)
        total = shares_A.sum()
        return shares_A / total if total > 0 else torch.full_like(shares_A, 1 / len(shares_A))

    def _scales(self, stats: StepStats) -> Tensor:
        """What makes each gradient as long as its loss: ``[A]``."""
        assert stats.gramian is not None
        lengths_A = stats.gramian.diagonal().clamp(min=0).sqrt()
        longest = float(lengths_A.max())
        if not longest:
            return torch.zeros_like(lengths_A)
        return stats.losses / lengths_A.clamp(min=SMALLEST * longest)

    def _products(
        self, averages_Tp: Tensor, weights_A: Tensor, stats: StepStats, columns: Columns
    ) -> Tensor:
        """Inner products of the averages with their weighted sum: ``[A]``."""
        weights_T = spread(weights_A, stats.index, averages_Tp).double()
        products_T = torch.zeros_like(weights_T)
        for part in parts(averages_Tp):
            some_Tp = averages_Tp[:, part].double()
            products_T += some_Tp @ (weights_T @ some_Tp)
        return columns.sum(products_T).to(weights_A)[stats.index]

    def _project(self, weights_A: Tensor) -> Tensor:
        """Back to where all are 0 or more and sum to 1."""
        if self.projection == "softmax":
            return torch.softmax(weights_A, 0)
        weights_A = weights_A - weights_A.max()  # keeps the sums below small
        sorted_A = weights_A.sort(descending=True).values
        excess_A = (sorted_A.cumsum(0) - 1) / torch.arange(1, len(sorted_A) + 1)
        above = int((sorted_A > excess_A).sum())  # a prefix of at least one
        return (weights_A - excess_A[above - 1]).clamp(min=0)
