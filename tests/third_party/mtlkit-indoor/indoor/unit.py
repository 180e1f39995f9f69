"""Gradients of one length."""

from torch import Tensor

from mtlkit import LossBalancer, StepStats


class Unit(LossBalancer):
    """Makes all tasks' gradients as long as their lengths' mean.

    Args:
        floor: what shorter gradients are taken for, as a share of the longest.
    """

    needs = "gramian"

    def __init__(self, tasks, /, *, floor: float = 1e-3) -> None:
        super().__init__(tasks)
        self.floor = floor

    def weights(self, stats: StepStats) -> Tensor:
        lengths = stats.gramian.diagonal().clamp(min=0).sqrt()
        safe = lengths.clamp(min=max(self.floor * lengths.max().item(), 1e-12))
        return lengths.mean() / safe
