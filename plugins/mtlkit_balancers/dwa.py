"""Dynamic weight average."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats


class DWA(LossBalancer):
    """Tasks whose loss fell least over the last two epochs get the larger weights.

    w = T softmax(r / temperature) with r the ratio of a task's mean losses in the last epoch and
    the one before it. All weights are 1 in the first two epochs. A mean is over the labelled
    elements of all steps of an epoch; a task without a label in either epoch has r = 1.

    Args:
        temperature: above 0; large values make the weights equal.

    Raises:
        ValueError: ``temperature`` is not above 0.

    Reference: Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
        arXiv 1803.10704, eq. 7.
    """

    linear = True
    sums: Tensor
    counts: Tensor
    epoch: Tensor

    def __init__(self, tasks: Sequence[str], /, *, temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, but is {temperature}")
        self.temperature = temperature
        shape = (3, len(self.tasks))  # this epoch, the last, the one before
        self.register_buffer("sums", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("epoch", torch.tensor(0))

    def weights(self, stats: StepStats) -> Tensor:
        """Eq. 7 over the active tasks: ``[A]``."""
        sums, counts = self._history(stats.epoch)
        last, before = (sums / counts)[1:, stats.index]  # nan where there was no label
        ratio = (last / before).nan_to_num(nan=1.0, posinf=1.0)
        weights = len(stats.index) * torch.softmax(ratio / self.temperature, dim=0)
        return weights.to(stats.losses)

    def commit(self, stats: StepStats, weights: Tensor) -> None:
        """Add this step's losses to the means of its epoch."""
        self.sums, self.counts = self._history(stats.epoch)
        self.epoch.fill_(stats.epoch)
        self.sums[0, stats.index] += (stats.losses * stats.counts).to(self.sums)
        self.counts[0, stats.index] += stats.counts.to(self.counts)

    def _history(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Sums and counts as they stand at ``epoch``: moved down when a new one has begun."""
        moved = epoch - int(self.epoch)
        if moved == 0:
            return self.sums, self.counts
        empty = torch.zeros_like(self.sums)
        return (
            torch.cat([empty, self.sums])[3 - moved :][:3] if moved <= 3 else empty,
            torch.cat([empty, self.counts])[3 - moved :][:3] if moved <= 3 else empty,
        )
