"""Homoscedastic uncertainty."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlkit import LossBalancer, StepStats


class Uncertainty(LossBalancer):
    """Each loss is divided by a learned noise variance: sum of exp(-s) L / 2 + s / 2.

    As in the two reference libraries, the factor 1/2 is used for every loss; the paper drops it
    for classification. At the optimum exp(s) = L, so the objective may well be negative.

    Args:
        initial: of every s, the logarithm of the variance.

    Reference: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses",
        CVPR 2018, arXiv 1705.07115, eq. 7 with s = log sigma^2.
    """

    linear = True

    def __init__(self, tasks: Sequence[str], /, *, initial: float = 0.0) -> None:
        super().__init__(tasks)
        self.log_variance = nn.Parameter(torch.full((len(self.tasks),), float(initial)))

    def weights(self, stats: StepStats) -> Tensor:
        """exp(-s) / 2 of the active tasks: ``[A]``."""
        return 0.5 * torch.exp(-self.log_variance[stats.index]).to(stats.losses)

    def objective(self, losses: Tensor, stats: StepStats) -> Tensor:
        """Eq. 7, differentiable in the losses and in s."""
        return (self.weights(stats) * losses).sum() + 0.5 * self.log_variance[stats.index].sum()
