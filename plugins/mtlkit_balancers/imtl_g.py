"""Impartial multi-task learning, the gradient part."""

import math

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._simplex import ROUNDING, lengths_and_cosines

LEAST_SUM = 0.01
"""Of the weights, relative to the sum of their sizes: bounds every weight by 100."""


class IMTLG(LossBalancer):
    """The step has the same projection onto every task's gradient.

    The weights sum to 1 and may be negative. Where gradients are linearly dependent the
    projections are equal in the sense of least squares. A zero gradient gets no weight.

    Differs from the paper where the weights of the common descent direction sum to almost nothing
    or less: dividing by that sum would blow the step up or make it climb on every task, so the
    sum is then brought below 1 instead. A task's own parameters get their raw gradient, as in the
    paper's algorithm; Nash-MTL's code weights them, which with negative weights makes them climb.

    Reference: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021,
        openreview.net/forum?id=IMPnRXEWpvr, section 3.1.
    """

    needs = "gramian"
    heads = "raw"

    def weights(self, stats: StepStats) -> Tensor:
        """Sum 1 and equal projections, in terms of the Gramian: ``[A]``."""
        assert stats.gramian is not None
        lengths, cosines_AA = lengths_and_cosines(stats.gramian.tolist())
        shortest = min(filter(None, lengths), default=1.0)
        moving = stats.gramian.new_tensor([float(length > 0) for length in lengths])
        inverse = stats.gramian.new_tensor([shortest / (length or math.inf) for length in lengths])
        values, vectors_AA = torch.linalg.eigh(stats.gramian.new_tensor(cosines_AA))
        kept = values > 4 * len(lengths) * ROUNDING * values[-1]
        parts = vectors_AA.T @ moving * kept
        if parts.norm() <= 1e-7:  # opposite gradients, or none: only a step of 0 is impartial
            return torch.zeros_like(moving)
        weights: Tensor = inverse * (vectors_AA @ (parts / torch.where(kept, values, 1.0)))
        total = torch.maximum(weights.sum(), LEAST_SUM * weights.abs().sum())
        return weights / total
