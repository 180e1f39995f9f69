"""Equal weights."""

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats


class Equal(LossBalancer):
    """The plain sum of the losses; the baseline every other balancer must beat.

    Reference: Kurin et al., "In Defense of the Unitary Scalarization for Deep Multi-Task
        Learning", NeurIPS 2022, arXiv 2201.04122.
    """

    linear = True

    def weights(self, stats: StepStats) -> Tensor:
        """One for every active task: ``[A]``."""
        return torch.ones_like(stats.losses)
