"""Random loss weighting."""

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats


class RLW(LossBalancer):
    """Weights drawn anew at every step: the softmax of standard normal numbers.

    They add up to 1, so that a step is a T-th of the plain sum's on average. They depend on the
    run's seed and the step alone, and are the same on every process.

    Reference: Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for
        Multi-Task Learning", TMLR 2022, arXiv 2111.10603, algorithm 2.
    """

    linear = True

    def weights(self, stats: StepStats) -> Tensor:
        """Of the active tasks, adding up to 1: ``[A]``."""
        drawn = torch.randn(len(self.tasks), generator=stats.rng("rlw"), dtype=torch.float64)
        drawn = drawn.to(stats.losses, non_blocking=True)
        return torch.softmax(drawn[stats.index], dim=0)
