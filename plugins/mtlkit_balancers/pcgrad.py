"""Gradient surgery."""

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._simplex import dot


class PCGrad(LossBalancer):
    """Sum of the tasks' gradients, each without what conflicts with the others.

    Each gradient is projected, one after the other in random order, onto the normal plane of
    every other gradient it has a negative inner product with. A zero gradient conflicts with
    none. As in the authors' code, a task's own parameters get their raw gradient.

    Reference: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
        arXiv 2001.06782, algorithm 1.
    """

    needs = "gramian"
    heads = "raw"

    def weights(self, stats: StepStats) -> Tensor:
        """Column sums of the projected gradients' coefficients: ``[A]``."""
        assert stats.gramian is not None
        gramian_AA = stats.gramian.tolist()
        generator = stats.rng("pcgrad")
        total = [0.0] * len(gramian_AA)
        for i, row in enumerate(gramian_AA):
            coefficients = [0.0] * len(row)
            coefficients[i] = 1.0
            for j in torch.randperm(len(row), generator=generator).tolist():
                if j == i or not gramian_AA[j][j] > 0:
                    continue
                product = dot(coefficients, gramian_AA[j])
                if product < 0:
                    coefficients[j] -= product / gramian_AA[j][j]
            total = [t + c for t, c in zip(total, coefficients, strict=True)]
        return torch.tensor(total, dtype=stats.gramian.dtype)
