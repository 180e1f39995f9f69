"""Mean losses of earlier stretches of a run."""

import torch
from torch import Tensor, nn

from mtlkit import StepStats


class History(nn.Module):
    """Each task's mean loss in each of the last periods, over the labelled elements of its steps.

    A period is an epoch or some number of steps; periods are numbered from 0. Numbers are compared
    where the losses are, so that nothing waits for the device.

    Args:
        num_tasks: T.
        num_means: how many finished periods are remembered, R.
    """

    sums: Tensor
    counts: Tensor
    period: Tensor

    def __init__(self, num_tasks: int, num_means: int) -> None:
        super().__init__()
        zeros = torch.zeros(1 + num_means, num_tasks, dtype=torch.float64)  # the current one first
        self.register_buffer("sums", zeros)
        self.register_buffer("counts", zeros.clone())
        self.register_buffer("period", torch.tensor(0))

    def means(self, stats: StepStats, period: int) -> Tensor:
        """``[R, A]``: of the periods before ``period``, the last one first; NaN without a label."""
        sums, counts = self._at(period)
        return (sums / counts)[1:, stats.index]

    def add(self, stats: StepStats, period: int) -> None:
        """Count a step's losses in its period."""
        self.sums, self.counts = self._at(period)
        self.period.fill_(period)
        self.sums[0, stats.index] += (stats.losses * stats.counts).to(self.sums)
        self.counts[0, stats.index] += stats.counts.to(self.counts)

    def _at(self, period: int) -> tuple[Tensor, Tensor]:
        """Sums and counts, moved down by as many rows as periods have begun."""
        rows = torch.arange(len(self.sums), device=self.sums.device) - (period - self.period)
        kept = (rows >= 0)[:, None]
        rows = rows.clamp(min=0)
        return torch.where(kept, self.sums[rows], 0.0), torch.where(kept, self.counts[rows], 0.0)
