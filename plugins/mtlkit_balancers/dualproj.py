"""Projection of the mean gradient."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._quadratic import dual_cone


class DualProj(LossBalancer):
    """The mean of the gradients, freed of what conflicts with any task.

    It is the nearest direction to the mean that harms no task. In the paper's setting the
    other tasks are memories of what was learned before. As in TorchJD a task's own parameters get
    their raw gradient.

    Args:
        norm_eps: sum of the gradients' squared lengths at or below which they are taken for 0;
            1e-4 in TorchJD.
        reg_eps: added to the diagonal of the Gramian, whose trace is 1, so that no weight is larger
            than about 1 / reg_eps; in (0, 1]. Below 1e-6 the gradients' rounding is seen.

    Raises:
        ValueError: ``norm_eps`` is negative or not finite, or ``reg_eps`` outside (0, 1].

    Reference: Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017,
        arXiv 1706.08840, eq. 11.
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
        """Coefficients of the projection: ``[A]``, 1/A or more."""
        assert stats.gramian is not None
        found = dual_cone(
            stats.gramian,
            torch.ones(1, len(stats.gramian)).to(stats.gramian),
            norm_eps=self.norm_eps,
            reg_eps=self.reg_eps,
        )
        self.report = {"iterations": found.iterations, "failures": found.failures}
        return (found.weights_NA[0] / len(stats.gramian)).to(stats.losses)
