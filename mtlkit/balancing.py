"""Balancing: a balancer and what is put before and after it, the same for all of them."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from mtlkit.balancer import Columns, Heads, LossBalancer, StepStats
from mtlkit.errors import ConfigError, RunError

Losses = Literal["raw", "log"]
Scale = Literal["none", "sum-t", "sum-1"]

SMALLEST_LOSS = 1e-8
"""Of which the logarithm is taken; a smaller loss counts as this."""


class Balancing(nn.Module):
    """A loss transform, then a balancer, then smoothing, scaling and reuse of its weights.

    Args:
        balancer: decides.
        losses: ``log`` shows the balancer the logarithms of the losses and their gradients.
        smooth: share of the average of earlier weights in a step's weights, in [0, 1).
        scale: what the absolute weights of a step's A active tasks add up to: A for ``sum-t``, 1
            for ``sum-1``, whatever the balancer says for ``none``.
        every: steps between two decisions; the weights are reused in between.
        heads: what a task's own parameters get; None leaves it to the balancer.

    Raises:
        ConfigError: the balancer has no weights that could be smoothed, scaled or reused.
    """

    average: Tensor
    held: Tensor

    def __init__(
        self,
        balancer: LossBalancer,
        *,
        losses: Losses = "raw",
        smooth: float = 0.0,
        scale: Scale = "none",
        every: int = 1,
        heads: Heads | None = None,
    ) -> None:
        super().__init__()
        self.balancer = balancer
        self.logarithmic = losses != "raw"
        self.smooth = smooth
        self.scale = scale
        self.every = every
        self.heads = heads or balancer.heads
        self.needs = balancer.needs
        if self.needs == "columns" and (smooth or scale != "none" or every > 1):
            raise ConfigError(
                f"{type(balancer).__name__} combines the tasks' gradients column by column, not by "
                "weights; leave out --smooth, --balancer-scale and --balance-every"
            )
        unknown = torch.full((len(balancer.tasks),), float("nan"), dtype=torch.float64)
        self.register_buffer("average", unknown.clone())  # of the balancer's weights
        self.register_buffer("held", unknown.clone())  # what it all came to

    @property
    def linear(self) -> bool:
        """Whether weights are always known before the step's losses are."""
        return self.balancer.linear and not self.logarithmic

    def reuses(self, stats: StepStats) -> bool:
        """Whether the weights of an earlier step serve for this one."""
        if stats.step % self.every == 0:
            return False
        return bool(self.held[stats.index].isfinite().all())

    def known(self, stats: StepStats) -> Tensor | None:
        """``[A]``: the weights, if neither this step's losses nor its gradients are needed."""
        if self.reuses(stats):
            return self.held[stats.index].to(stats.losses)
        return self.weights(stats) if self.linear else None

    def weights(self, stats: StepStats) -> Tensor:
        """What multiplies each task's gradient, decided anew: ``[A]``.

        Raises:
            RunError: the balancer did not give one finite weight for every active task.
        """
        weights = self._chosen(stats)
        if self.smooth:
            before = self.average[stats.index].to(weights)
            mixed = self.smooth * before + (1 - self.smooth) * weights
            weights = torch.where(before.isnan(), weights, mixed)
        self._smoothed = weights
        if self.logarithmic:
            weights = weights / stats.losses.clamp(min=SMALLEST_LOSS)
        if self.scale != "none":
            total = len(weights) if self.scale == "sum-t" else 1
            weights = weights * (total / weights.abs().sum().clamp(min=1e-30))
        return weights

    def own_weights(self, weights: Tensor) -> Tensor:
        """What multiplies the gradient of each task's own parameters: ``[A]``."""
        return weights if self.heads == "weighted" else torch.ones_like(weights)

    def combine(self, rows_Ap: Tensor, stats: StepStats, columns: Columns) -> Tensor:
        """The gradient ``[p]`` that a balancer with ``needs = "columns"`` makes of the rows."""
        if self.logarithmic:
            rows_Ap = rows_Ap / stats.losses.clamp(min=SMALLEST_LOSS).to(rows_Ap)[:, None]
        return self.balancer.combine(rows_Ap, self._seen(stats), columns)

    def param_objective(self, stats: StepStats) -> Tensor | None:
        """What the balancer's own parameters minimise, if it has any."""
        return self.balancer.param_objective(self._seen(stats))

    @torch.no_grad()
    def commit(self, stats: StepStats, weights: Tensor, *, reused: bool) -> None:
        """Remember a step that really happened."""
        if not reused:
            self.average[stats.index] = self._smoothed.to(self.average)
            self.held[stats.index] = weights.to(self.held)
        if not reused or self.needs == "losses":
            chosen = weights if reused else self._latest
            self.balancer.commit(self._seen(stats), chosen)

    @torch.no_grad()
    def revisit(self, stats: StepStats, losses: Tensor) -> None:
        """Tell the balancer the losses after the step."""
        after = self._seen(replace(stats, losses=losses)).losses
        self.balancer.revisit(self._seen(stats), after)

    def _chosen(self, stats: StepStats) -> Tensor:
        seen = self._seen(stats)
        weights = self.balancer.weights(seen).detach()
        name = type(self.balancer).__name__
        if weights.shape != seen.losses.shape:
            raise RunError(
                f"{name} gave weights of shape {tuple(weights.shape)} "
                f"for {len(seen.losses)} active tasks"
            )
        if self.needs != "losses" and not bool(weights.isfinite().all()):
            raise RunError(f"{name} gave the weights {weights.tolist()} at step {stats.step}")
        self._latest = weights
        return weights

    def _seen(self, stats: StepStats) -> StepStats:
        """What the balancer is shown: the losses, or their logarithms."""
        if not self.logarithmic:
            return stats
        losses = stats.losses.clamp(min=SMALLEST_LOSS)
        gramian = stats.gramian
        if gramian is not None:
            gramian = gramian / torch.outer(losses, losses).to(gramian)
        return replace(stats, losses=losses.log(), gramian=gramian)
