"""Gradient normalisation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlkit import LossBalancer, StepStats


class GradNorm(LossBalancer):
    """Weights are learned so that all tasks train at a similar rate.

    The gradient of a weighted loss shall be as long as the tasks' average, times r^alpha with r
    how much less than the others' a task's loss has fallen. The weights are w = T softmax(v)
    instead of w divided by its mean after each step: they cannot become negative, and sum to T
    over all tasks whether or not a step has all of them.

    A task's first loss is its mean over its first steps with a loss above 0; before, r counts the
    loss of the step itself. The lengths are of the gradients on all that the tasks share, not on
    its last layer alone. As in LibMTL, a task's own parameters get their raw gradient.

    v is trained by the network's optimiser, without a second derivative: the lengths are
    constants. It must stay on the CPU in float32 or float64.

    Args:
        alpha: 0 or more; 0 asks for gradients of equal length, more for slow tasks to catch up.
        num_first_steps: how many steps the first loss is the mean of, 1 or more; 1 in the paper.

    Raises:
        ValueError: ``alpha`` is negative, or ``num_first_steps`` less than 1.

    Reference: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
        Multitask Networks", ICML 2018, arXiv 1711.02257, eq. 1 and 2.
    """

    needs = "gramian"
    heads = "raw"
    first_sums: Tensor
    first_steps: Tensor

    def __init__(
        self, tasks: Sequence[str], /, *, alpha: float = 1.5, num_first_steps: int = 20
    ) -> None:
        super().__init__(tasks)
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha must be 0 or more, but is {alpha}")
        if num_first_steps < 1:
            raise ValueError(f"num_first_steps must be 1 or more, but is {num_first_steps}")
        self.alpha = alpha
        self.num_first_steps = num_first_steps
        self.logits = nn.Parameter(torch.zeros(len(self.tasks)))
        zeros = torch.zeros(len(self.tasks), dtype=torch.float64)
        self.register_buffer("first_sums", zeros)
        self.register_buffer("first_steps", zeros.clone())

    def weights(self, stats: StepStats) -> Tensor:
        """T softmax(v) of the active tasks: ``[A]``."""
        return self._weights(stats).detach()

    def param_objective(self, stats: StepStats) -> Tensor:
        """Eq. 2, differentiable in v."""
        assert stats.gramian is not None
        lengths = self._weights(stats) * stats.gramian.diagonal().clamp(min=0).sqrt()
        goals = lengths.detach().mean() * self._rates(stats) ** self.alpha
        return (lengths - goals).abs().sum()

    def commit(self, stats: StepStats, weights: Tensor) -> None:
        """Add this step's losses to the first ones while they are still too few."""
        self.first_sums[stats.index], self.first_steps[stats.index] = self._first(stats)

    def _weights(self, stats: StepStats) -> Tensor:
        weights = len(self.tasks) * torch.softmax(self.logits.to(stats.losses), dim=0)
        return weights[stats.index]

    def _rates(self, stats: StepStats) -> Tensor:
        """Inverse training rates r relative to their mean: ``[A]``, in [0, A]."""
        sums, steps = self._first(stats)
        ratios = torch.where(steps > 0, stats.losses.clamp(min=0) * steps / sums, 1.0)
        mean = ratios.mean()
        return torch.where(mean > 0, ratios / mean, 1.0)

    def _first(self, stats: StepStats) -> tuple[Tensor, Tensor]:
        """Sums and numbers ``[A]`` of the first losses, with this step's if it is one of them."""
        sums, steps = self.first_sums[stats.index], self.first_steps[stats.index]
        counts = (stats.losses > 0) & (steps < self.num_first_steps)
        return sums + stats.losses.to(sums) * counts, steps + counts
