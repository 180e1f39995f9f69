"""Sum of log losses."""

from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._positive import positive


class Log(LossBalancer):
    """The sum of the losses' logarithms: each gradient is divided by its loss.

    No loss's unit matters. A loss below 1e-8 counts as 1e-8.

    Reference: the scale-invariant baseline (SI) of Navon et al., "Multi-Task Learning as a
        Bargaining Game", ICML 2022, arXiv 2202.01017.
    """

    def weights(self, stats: StepStats) -> Tensor:
        """1 / L: ``[A]``."""
        return 1 / positive(stats.losses)
