"""Dynamic weight average."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._history import History


class DWA(LossBalancer):
    """Tasks whose loss fell least over the last two epochs get the larger weights.

    w = T softmax(r / temperature) with r the ratio of a task's mean losses in the last epoch and
    the one before it. All weights are 1 in the first two epochs. A mean is over the labelled
    elements of all steps of an epoch; a task without a label in either epoch, or whose loss was 0
    in the earlier one, has r = 1. For losses that are 0 or more: of negative ones, the ratio says
    the opposite.

    Args:
        temperature: above 0; large values make the weights equal.

    Raises:
        ValueError: ``temperature`` is not above 0.

    Reference: Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
        arXiv 1803.10704, eq. 7.
    """

    linear = True

    def __init__(self, tasks: Sequence[str], /, *, temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, but is {temperature}")
        self.temperature = temperature
        self.history = History(len(self.tasks), 2)

    def weights(self, stats: StepStats) -> Tensor:
        """Eq. 7 over the active tasks: ``[A]``."""
        last, before = self.history.means(stats, stats.epoch)
        ratio = (last / before).nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
        weights = len(stats.index) * torch.softmax(ratio / self.temperature, dim=0)
        return weights.to(stats.losses)

    def commit(self, stats: StepStats, weights: Tensor) -> None:
        """Add this step's losses to the means of its epoch."""
        self.history.add(stats, stats.epoch)
