"""Geometric loss strategy."""

from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._positive import positive


class Geometric(LossBalancer):
    """The geometric mean of the active tasks' losses.

    No loss's unit matters to the direction. The mean's derivative for a loss is the mean divided
    by that loss and the number of tasks; the product of the losses is never taken, as it leaves
    the range of float32 for many tasks. A loss below 1e-8 counts as 1e-8; one such loss makes the
    other tasks' weights small, as the mean is.

    Reference: Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
        Strategy for Multi-Task Learning", CVPR Workshops 2019, arXiv 1904.08492 (GLS).
    """

    def weights(self, stats: StepStats) -> Tensor:
        """The mean's derivatives: ``[A]``."""
        losses = positive(stats.losses)
        return losses.log().mean().exp() / (len(losses) * losses)
