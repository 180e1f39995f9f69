"""Gradient sign dropout."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import Columns, LossBalancer, StepStats


class GradDrop(LossBalancer):
    """Each shared parameter follows either what pulls it up or what pulls it down, at random.

    The tasks whose derivatives have the chosen sign are summed, the others dropped. The more one
    sign prevails in a parameter's derivatives, the more often it is chosen.

    The paper drops among the gradients of the last shared features, times the features' signs;
    here as in TorchJD among the parameters'. The leak is the same for all tasks.

    Args:
        leak: part of the dropped derivatives that is added nevertheless, in [0, 1]. 1 is plain
            summing.

    Raises:
        ValueError: ``leak`` is outside [0, 1].

    Reference: Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign
        Dropout", NeurIPS 2020, arXiv 2010.06808, algorithm 1.
    """

    needs = "columns"
    heads = "raw"

    def __init__(self, tasks: Sequence[str], /, *, leak: float = 0.0) -> None:
        super().__init__(tasks)
        if not 0 <= leak <= 1:
            raise ValueError(f"leak must be in [0, 1], but is {leak}")
        self.leak = leak

    def combine(self, rows_Ap: Tensor, stats: StepStats, columns: Columns) -> Tensor:
        """The sum of what was kept: ``[p]``."""
        total_p = rows_Ap.sum(0)
        size_p = rows_Ap.abs_().sum(0)
        # (total + size) / 2 is the sum of the positive ones, (total - size) / 2 of the negative.
        # (1 + total / size) / 2 > U decides, without dividing by a size of 0.
        threshold_p = columns.rand(stats.rng("graddrop")).mul_(2).sub_(1).to(size_p).mul_(size_p)
        kept_p = size_p.copysign_(total_p - threshold_p).add_(total_p).div_(2)
        return torch.lerp(kept_p, total_p, self.leak, out=kept_p)

    def weights(self, stats: StepStats) -> Tensor:
        """All 1: ``[A]``."""
        return torch.ones_like(stats.losses)
