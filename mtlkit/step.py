"""One optimiser step, the same whichever components are in use."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mtlkit.balancer import LossBalancer, StepStats
from mtlkit.model import Model, TaskBatch


@dataclass(frozen=True)
class StepResult:
    """What one step did; tensors stay on the device until somebody logs them.

    Args:
        losses: global mean loss of each task, by id, float64; NaN for a task without labels.
        weights: what multiplied each task's gradient, by id; NaN likewise.
    """

    losses: dict[str, Tensor]
    weights: dict[str, Tensor]


class Step:
    """Trains the network on a window of batches: one optimiser step.

    Args:
        accelerator: runs it, on one process or many.
        network: the model as Accelerate prepared it.
        model: the same, unwrapped.
        balancer: on the accelerator's device.
        optimizer: prepared, over the model's and the balancer's parameters.
        clip: largest norm of the gradient; 0 is off.
        seed: of the run.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        model: Model,
        balancer: LossBalancer,
        optimizer: Any,
        *,
        clip: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.accelerator = accelerator
        self.network = network
        self.model = model
        self.tasks = tuple(model.tasks.values())
        self.balancer = balancer
        self.optimizer = optimizer
        self.clip = clip
        self.seed = seed
        self.dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64

    def __call__(self, window: Sequence[TaskBatch], *, step: int, epoch: int) -> StepResult:
        """One optimiser step on the mean losses over ``window``, on all processes."""
        stats = self._stats(window, step, epoch)
        graphs: Iterable[list[Tensor]]
        if self.balancer.linear:  # weights first, so that each batch's graph is freed at once
            weights = self._weights(stats)
            graphs = (self._sums(batch) for batch in window)
        else:
            graphs = [self._sums(batch) for batch in window]
            stats = self._with_losses(stats, [_values(sums) for sums in graphs])
            weights = self._weights(stats)
        values = [
            self._backward(sums, weights, stats, last=number == len(window))
            for number, sums in enumerate(graphs, start=1)
        ]
        stats = self._with_losses(stats, values)
        self._set_balancer_gradients(stats)
        self._drop_inactive_gradients(stats)
        if self.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        if not self.optimizer.step_was_skipped:
            self.balancer.commit(stats, weights)
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(self._all(stats.losses, stats), self._all(weights, stats))

    def _stats(self, window: Sequence[TaskBatch], step: int, epoch: int) -> StepStats:
        """What is known before the first forward pass: which tasks have labels, and how many."""
        has = [any(flags) for flags in zip(*(batch.labelled for batch in window), strict=True)]
        labelled = torch.tensor(has, dtype=torch.int64)
        if self.accelerator.num_processes > 1:
            labelled = self._reduce(labelled.to(self.accelerator.device)).cpu()
        index = labelled.nonzero().flatten().to(self.accelerator.device, non_blocking=True)
        local = [
            torch.stack([
                task.count(target, present)
                for task, target, present in zip(
                    self.tasks, batch.targets, batch.present, strict=True
                )
            ])
            for batch in window
        ]  # fmt: skip
        counts = self._reduce(torch.stack(local).to(self.dtype).sum(0))[index]
        return StepStats(
            losses=torch.zeros_like(counts),
            index=index,
            counts=counts,
            step=step,
            epoch=epoch,
            seed=self.seed,
        )

    def _with_losses(self, stats: StepStats, values: Sequence[Tensor]) -> StepStats:
        """The same with the global mean losses, from this process's sums ``[T]`` per batch."""
        sums = self._reduce(torch.stack(list(values)).to(self.dtype).sum(0))
        return replace(stats, losses=sums[stats.index] / stats.counts.clamp(min=1))

    def _sums(self, batch: TaskBatch) -> list[Tensor]:
        """Each task's loss, summed over this batch.

        They stay apart: back from an entry of a stacked vector, zeros would flow through every
        other head, and one task's infinity become every task's NaN.
        """
        with self.accelerator.autocast():
            predictions = self.network(*batch.inputs)
        return [
            task.loss(predictions[task.id], target, present)[0]
            for task, target, present in zip(self.tasks, batch.targets, batch.present, strict=True)
        ]

    def _weights(self, stats: StepStats) -> Tensor:
        """``[A]``: how much the balancer's objective grows with each loss."""
        losses = stats.losses.clone().requires_grad_()
        return torch.autograd.grad(self.balancer.objective(losses, stats), losses)[0]

    def _backward(
        self, sums: list[Tensor], weights: Tensor, stats: StepStats, *, last: bool
    ) -> Tensor:
        """Add this batch's share of the weighted mean losses' gradient; returns its sums ``[T]``.

        DDP averages over processes, hence times their number.
        """
        scale = torch.zeros(len(sums), dtype=self.dtype, device=weights.device)
        scale[stats.index] = weights / stats.counts.clamp(min=1) * self.accelerator.num_processes
        total = torch.stack([s * w.to(s) for s, w in zip(sums, scale.unbind(), strict=True)]).sum()
        with nullcontext() if last else self.accelerator.no_sync(self.network):
            self.accelerator.backward(total)
        return _values(sums)

    def _set_balancer_gradients(self, stats: StepStats) -> None:
        """Gradients of the balancer's own parameters, alike on every process."""
        parameters = [p for p in self.balancer.parameters() if p.requires_grad]
        if not parameters:
            return
        objective = self.balancer.objective(stats.losses, stats)
        gradients = torch.autograd.grad(objective, parameters, allow_unused=True)
        scaler = self.accelerator.scaler
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient * (scaler.get_scale() if scaler else 1)

    def _drop_inactive_gradients(self, stats: StepStats) -> None:
        """A task without labels must not be moved by weight decay or momentum."""
        if len(stats.index) == len(self.tasks):
            return
        active = set(stats.index.tolist())
        for position, task in enumerate(self.tasks):
            if position not in active:
                for parameter in self.model.own_parameters(task.id):
                    parameter.grad = None

    def _all(self, values: Tensor, stats: StepStats) -> dict[str, Tensor]:
        """``[A]`` by task id, NaN where a task was not active."""
        out = values.new_full((len(self.tasks),), float("nan"))
        out[stats.index] = values.detach()
        return dict(zip(self.model.tasks, out.unbind(), strict=True))

    def _reduce(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        reduced: Tensor = self.accelerator.reduce(values, reduction="sum")
        return reduced


def _values(sums: Sequence[Tensor]) -> Tensor:
    return torch.stack([s.detach() for s in sums])
