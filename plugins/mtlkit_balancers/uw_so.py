"""Soft optimal uncertainty weighting."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._positive import positive


class UWSO(LossBalancer):
    """The analytical optimum of uncertainty weighting, 1 / L, through a softmax.

    w = softmax(1 / (L temperature)), adding up to 1 over the active tasks. The right temperature
    depends on the losses' units; the paper tunes it for every data set. A loss that nears 0 takes
    all the weight. A loss below 1e-8 counts as 1e-8, where the paper adds a small constant.

    Args:
        temperature: above 0; large values make the weights equal.

    Raises:
        ValueError: ``temperature`` is not above 0.

    Reference: Kirchdorfer et al., "Analytical Uncertainty-Based Loss Weighting in Multi-Task
        Learning", GCPR 2024, arXiv 2408.07985 (UW-SO).
    """

    def __init__(self, tasks: Sequence[str], /, *, temperature: float = 1.0) -> None:
        super().__init__(tasks)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, but is {temperature}")
        self.temperature = temperature

    def weights(self, stats: StepStats) -> Tensor:
        """The softmax over the active tasks: ``[A]``."""
        return torch.softmax(1 / (positive(stats.losses) * self.temperature), dim=0)
