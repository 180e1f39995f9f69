"""Unconflicting projection of gradients."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._quadratic import dual_cone


class UPGrad(LossBalancer):
    """The mean of the gradients, each freed first of what conflicts with any task.

    Each is projected on the cone of the directions that harm no task. Without a conflict the
    weights are 1/A each. As in TorchJD a task's own parameters get their raw gradient.

    TorchJD takes gradients for 0, and all weights for 1/A, where their squared lengths sum to less
    than ``norm_eps`` = 1e-4; here they are not, as small gradients conflict as large ones do.

    Args:
        norm_eps: sum of the gradients' squared lengths at or below which they are taken for 0.
        reg_eps: added to the diagonal of the Gramian, whose trace is 1, so that no weight is larger
            than about 1 / reg_eps; in (0, 1]. Below 1e-6 the gradients' rounding is seen.

    Raises:
        ValueError: ``norm_eps`` is negative or not finite, or ``reg_eps`` outside (0, 1].

    Reference: Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization", 2024,
        arXiv 2406.16232, eq. 3 and proposition 1.
    """

    needs = "gramian"
    heads = "raw"

    def __init__(
        self, tasks: Sequence[str], /, *, norm_eps: float = 0.0, reg_eps: float = 1e-4
    ) -> None:
        super().__init__(tasks)
        if not 0 <= norm_eps < math.inf:
            raise ValueError(f"norm_eps must be 0 or more and finite, but is {norm_eps}")
        if not 0 < reg_eps <= 1:
            raise ValueError(f"reg_eps must be in (0, 1], but is {reg_eps}")
        self.norm_eps = norm_eps
        self.reg_eps = reg_eps

    def weights(self, stats: StepStats) -> Tensor:
        """The sum of the projections' coefficients: ``[A]``, 1/A or more."""
        assert stats.gramian is not None
        size = len(stats.gramian)
        found = dual_cone(
            stats.gramian,
            torch.eye(size).to(stats.gramian),
            norm_eps=self.norm_eps,
            reg_eps=self.reg_eps,
        )
        self.report = {"iterations": found.iterations, "failures": found.failures}
        return (found.weights_NA.sum(0) / size).to(stats.losses)
