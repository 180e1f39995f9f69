"""Gradient vaccine."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._simplex import dot

LARGEST_GOAL = 1 - 1e-6
"""A goal of 1 has no finite answer; this one asks for at most 700 times a gradient."""


class GradVac(LossBalancer):
    """Sum of the tasks' gradients, each turned toward those it agrees with less than usual.

    One after the other in random order, a gradient gets so much of every other gradient added
    that their cosine is what it was on average. Over the whole gradient, not per layer. The
    average follows every cosine, as in the paper; in LibMTL only those below it. A task without a
    gradient changes nothing.

    Args:
        beta: how much of the last cosine goes into the average, in [0, 1]. At 0 the average
            stays 0, which is PCGrad.

    Raises:
        ValueError: ``beta`` is outside [0, 1].

    Reference: Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization
        in Massively Multilingual Models", ICLR 2021, arXiv 2010.05874, eq. 2 and 3.
    """

    needs = "gramian"
    heads = "raw"
    goals: Tensor

    def __init__(self, tasks: Sequence[str], /, *, beta: float = 0.5) -> None:
        super().__init__(tasks)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be in [0, 1], but is {beta}")
        self.beta = beta
        shape = (len(self.tasks), len(self.tasks))
        self.register_buffer("goals", torch.zeros(shape, dtype=torch.float64))

    def weights(self, stats: StepStats) -> Tensor:
        """Column sums of the turned gradients' coefficients: ``[A]``."""
        return self._turn(stats)[0]

    def commit(self, stats: StepStats, weights: Tensor) -> None:
        """Move the average cosines toward this step's."""
        goals_AA = self._turn(stats)[1]
        self.goals[stats.index[:, None], stats.index] = goals_AA.to(self.goals)

    def _turn(self, stats: StepStats) -> tuple[Tensor, Tensor]:
        """Weights ``[A]`` and the next goals ``[A, A]``; the same for the same ``stats``."""
        assert stats.gramian is not None
        gramian_AA = stats.gramian.tolist()
        goals_AA = self.goals[stats.index[:, None], stats.index].tolist()
        lengths = [math.sqrt(max(row[i], 0.0)) for i, row in enumerate(gramian_AA)]
        generator = stats.rng("gradvac")
        total = [0.0] * len(lengths)
        for i, goals in enumerate(goals_AA):
            coefficients = [0.0] * len(lengths)
            coefficients[i] = 1.0
            products = gramian_AA[i]
            size = lengths[i]  # of the terms: a length far below it is rounding
            for j in torch.randperm(len(lengths), generator=generator).tolist():
                square = dot(coefficients, products)
                if j == i or lengths[j] == 0 or not square > 1e-14 * size**2:
                    continue
                length = math.sqrt(square)
                cosine = min(max(products[j] / (length * lengths[j]), -1.0), 1.0)
                goal = min(max(goals[j], -LARGEST_GOAL), LARGEST_GOAL)
                if cosine < goal:
                    ratio = math.sqrt((1 - cosine**2) / (1 - goal**2))
                    added = length / lengths[j] * (goal * ratio - cosine)
                    coefficients[j] += added
                    products = [p + added * g for p, g in zip(products, gramian_AA[j], strict=True)]
                    size += abs(added) * lengths[j]
                goals[j] += self.beta * (cosine - goals[j])
            total = [t + c for t, c in zip(total, coefficients, strict=True)]
        dtype = stats.gramian.dtype
        return torch.tensor(total, dtype=dtype), torch.tensor(goals_AA, dtype=dtype)
