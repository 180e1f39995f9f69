"""Impartial multi-task learning, its loss balance."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._positive import positive


class IMTLL(LossBalancer):
    """Each loss gets a learned scale that brings it to 1: sum of exp(s) L - s.

    At the optimum exp(s) = 1 / L. It is twice the objective of uncertainty weighting with -s for
    s, so that it steps twice as far under SGD. To s, a loss below 1e-8 is 1e-8: it would rise
    forever under a loss of 0.

    The paper's IMTL adds IMTL-G's weights for the shared parameters; this is the loss balance
    alone.

    Args:
        initial: of every s, the logarithm of the scale; finite. 0 makes all weights 1.

    Raises:
        ValueError: ``initial`` is not finite.

    Reference: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, OpenReview
        IMPnRXEWpvr (IMTL-L).
    """

    linear = True

    def __init__(self, tasks: Sequence[str], /, *, initial: float = 0.0) -> None:
        super().__init__(tasks)
        if not math.isfinite(initial):
            raise ValueError(f"initial must be finite, but is {initial}")
        self.log_scale = nn.Parameter(torch.full((len(self.tasks),), float(initial)))

    def weights(self, stats: StepStats) -> Tensor:
        """exp(s) of the active tasks: ``[A]``."""
        return torch.exp(self._log_scale(stats)).detach()

    def param_objective(self, stats: StepStats) -> Tensor:
        """The sum of exp(s) L - s, differentiable in s."""
        s = self._log_scale(stats)
        return (torch.exp(s) * positive(stats.losses) - s).sum()

    def _log_scale(self, stats: StepStats) -> Tensor:
        return self.log_scale[stats.index].to(stats.losses)
