"""Homoscedastic uncertainty."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._positive import positive


class Uncertainty(LossBalancer):
    """Each loss is divided by a learned noise variance: sum of exp(-s) L / 2 + s / 2.

    As in the two reference libraries, the factor 1/2 is used for every loss; the paper drops it
    for classification. At the optimum exp(s) = L, so the objective may well be negative. To s, a
    loss below 1e-8 is 1e-8: it would sink forever under a loss of 0.

    Args:
        initial: of every s, the logarithm of the variance; finite. 0 makes all weights 1/2.

    Raises:
        ValueError: ``initial`` is not finite.

    Reference: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses",
        CVPR 2018, arXiv 1705.07115, eq. 7 with s = log sigma^2.
    """

    linear = True

    def __init__(self, tasks: Sequence[str], /, *, initial: float = 0.0) -> None:
        super().__init__(tasks)
        if not math.isfinite(initial):
            raise ValueError(f"initial must be finite, but is {initial}")
        self.log_variance = nn.Parameter(torch.full((len(self.tasks),), float(initial)))

    def weights(self, stats: StepStats) -> Tensor:
        """exp(-s) / 2 of the active tasks: ``[A]``."""
        return torch.exp(-self._log_variance(stats)).detach() / 2

    def param_objective(self, stats: StepStats) -> Tensor:
        """Eq. 7, differentiable in s."""
        s = self._log_variance(stats)
        return (torch.exp(-s) * positive(stats.losses) + s).sum() / 2

    def _log_variance(self, stats: StepStats) -> Tensor:
        return self.log_variance[stats.index].to(stats.losses)
