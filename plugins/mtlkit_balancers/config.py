"""Conflict-free training."""

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats

ZERO = 1e-12
"""Eigenvalue or square, relative to the largest possible, taken for 0."""


class ConFIG(LossBalancer):
    """The direction at the same angle to all gradients.

    Its length is the sum of their projections on it. It conflicts with none, and the lengths of the
    gradients do not turn it. It is a combination of the gradients, found from their inner products
    alone; the weights may be negative. If more tasks than directions leave no such direction, the
    nearest in the sense of least squares is taken, and where this is nothing at all, as for opposed
    gradients, the step is zero. Tasks without a gradient are left out. As in TorchJD a task's own
    parameters get their raw gradient.

    The paper's variant with momenta (M-ConFIG) is not built.

    Reference: Liu et al., "ConFIG: Towards Conflict-free Training of Physics Informed Neural
        Networks", ICLR 2025, arXiv 2408.11104, eq. 2.
    """

    needs = "gramian"
    heads = "raw"

    def weights(self, stats: StepStats) -> Tensor:
        """Coefficients of the direction of eq. 2: ``[A]``."""
        assert stats.gramian is not None
        lengths_A = stats.gramian.diagonal().clamp(min=0).sqrt()
        inverse_A = torch.where(lengths_A > 0, 1 / lengths_A, 0.0)
        cosines_AA = inverse_A[:, None] * stats.gramian * inverse_A
        # Of the unit vectors U, d = U^+ 1 = U' C^+ 1; then d'd = 1' C^+ 1 and U d = C C^+ 1.
        squares_A, vectors_AA = torch.linalg.eigh(cosines_AA)
        kept = squares_A > ZERO * len(squares_A)
        squares_R, vectors_AR = squares_A[kept], vectors_AA[:, kept]
        parts_R = vectors_AR.sum(0)
        square = (parts_R**2 / squares_R).sum()
        if (parts_R**2).sum() <= ZERO * len(squares_A):
            return torch.zeros_like(stats.losses)
        unit_A = vectors_AR @ (parts_R / squares_R)
        length = torch.dot(lengths_A, vectors_AR @ parts_R) / square
        return torch.mul(length * inverse_A, unit_A).to(stats.losses)
