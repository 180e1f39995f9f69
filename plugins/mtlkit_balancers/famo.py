"""Fast adaptive multi-task optimisation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._by_task import by_task
from mtlkit_balancers._positive import positive

DECAYS = (0.9, 0.999)
EPSILON = 1e-8


class FAMO(LossBalancer):
    """All losses fall at the same relative rate, for the price of one more forward pass.

    With z = softmax(v) and D a loss above its bound, the weights are z / D, divided by their sum.
    After the step, v moves away from the tasks whose log D fell most, by Adam, whose moments are
    kept for each task alone: a step without a task's labels leaves it as it is.

    Both rates are the paper's; for ``weight_decay``, its authors' code has 1e-5, 1e-3 and 0.01 in
    different places. That code clips the gradient on the shared parameters to a norm of 1, which
    is left to ``clip``. A D below 1e-8 counts as 1e-8, where it adds 1e-8: a task that has sunk
    below its bound takes all the weight.

    Args:
        lr: learning rate of v, 0 or more.
        weight_decay: the paper's gamma, pulls v to 0; 0 or more.
        bound: by task id, the lowest value its loss can have, for all tasks; 0 by default.

    Raises:
        ValueError: ``lr`` or ``weight_decay`` is negative, or ``bound`` does not name the tasks.

    Reference: Liu, Feng, Stone, Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023,
        arXiv 2306.03792, algorithm 2.
    """

    revisits = True
    bounds: Tensor
    logits: Tensor
    means: Tensor
    squares: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        /,
        *,
        lr: float = 0.025,
        weight_decay: float = 1e-3,
        bound: dict[str, float] | None = None,
    ) -> None:
        super().__init__(tasks)
        if not lr >= 0:
            raise ValueError(f"lr must be 0 or more, but is {lr}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be 0 or more, but is {weight_decay}")
        self.lr = lr
        self.weight_decay = weight_decay
        bounds = by_task("bound", bound or dict.fromkeys(self.tasks, 0.0), self.tasks)
        self.register_buffer("bounds", bounds, persistent=False)
        for name in ("logits", "means", "squares", "steps"):
            self.register_buffer(name, torch.zeros(len(self.tasks), dtype=torch.float64))

    def weights(self, stats: StepStats) -> Tensor:
        """The derivatives of the paper's loss, adding up to 1: ``[A]``."""
        weights = self._shares(stats) / self._above(stats.losses, stats)
        return (weights / weights.sum()).to(stats.losses)

    def revisit(self, stats: StepStats, losses: Tensor) -> None:
        """One step of Adam on v."""
        fall = self._above(stats.losses, stats).log() - self._above(losses, stats).log()
        shares, at = self._shares(stats), stats.index
        gradient = shares * (fall - (shares * fall).sum()) + self.weight_decay * self.logits[at]
        steps = self.steps[at] + 1
        means = torch.lerp(gradient, self.means[at], DECAYS[0])
        squares = torch.lerp(gradient.square(), self.squares[at], DECAYS[1])
        length = (squares / (1 - DECAYS[1] ** steps)).sqrt() + EPSILON
        self.logits[at] -= self.lr * means / (1 - DECAYS[0] ** steps) / length
        self.means[at], self.squares[at], self.steps[at] = means, squares, steps

    def _shares(self, stats: StepStats) -> Tensor:
        """z of the active tasks: ``[A]``."""
        return torch.softmax(self.logits[stats.index], dim=0)

    def _above(self, losses: Tensor, stats: StepStats) -> Tensor:
        """D, how much the losses are above their bounds: ``[A]``."""
        return positive(losses.to(self.bounds) - self.bounds[stats.index])
