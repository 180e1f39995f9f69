"""Window: the batches of one optimiser step, and what they come to on all processes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mtlkit.balancer import StepStats
from mtlkit.model import TaskBatch
from mtlkit.processes import Processes
from mtlkit.task import Task


class Window:
    """The batches between two optimiser steps.

    Means are over all labelled elements of all batches on all processes. How many there are is
    known from the targets, before the first forward pass.

    Args:
        batches: of this process, on the device.
        tasks: T, in their fixed order.
        processes: that train together.
        home: the device on which the balancer decides.
        step: optimiser steps done before this one.
        epoch: passes over the data done before this one.
        seed: of the run.
    """

    def __init__(
        self,
        batches: Sequence[TaskBatch],
        tasks: Sequence[Task],
        processes: Processes,
        home: torch.device,
        *,
        step: int,
        epoch: int,
        seed: int,
    ) -> None:
        self.batches = batches
        self.step = step
        self.tasks = tasks
        self.processes = processes
        has = [any(flags) for flags in zip(*(batch.labelled for batch in batches), strict=True)]
        if processes.count > 1:
            has = processes.sum(torch.tensor(has, dtype=torch.int64)).bool().tolist()
        self.active = [position for position, labelled in enumerate(has) if labelled]
        """Positions of the tasks with a label on any process."""
        counts = torch.stack([self._counts(batch) for batch in batches])
        no_double = counts.device.type == "mps"
        self.counts = processes.sum(counts.to(torch.float32 if no_double else torch.float64).sum(0))
        """``[T]`` labelled elements, at least 1."""
        self.counts.clamp_(min=1)
        index = torch.tensor(self.active, dtype=torch.int64).to(home, non_blocking=True)
        nothing = torch.zeros(len(self.active), dtype=self.counts.dtype, device=home)
        self.early_stats = StepStats(nothing, index=index, step=step, epoch=epoch, seed=seed)
        """What is known before the first forward pass."""

    def _counts(self, batch: TaskBatch) -> Tensor:
        labels = zip(self.tasks, batch.targets, batch.present, strict=True)
        return torch.stack([task.count(target, present) for task, target, present in labels])

    def mean(self, sums: Sequence[Tensor], task: int) -> Tensor:
        """A batch's share of the mean loss of one task, from its sum on this process."""
        return sums[task] / self.counts[task].to(sums[task])

    def weighted_mean(self, sums: Sequence[Tensor], weights: Tensor) -> Tensor:
        """A batch's share of the weighted sum of the active tasks' mean losses.

        Args:
            sums: of each task's loss over the batch, T scalars.
            weights: ``[A]``.
        """
        everyone = len(self.active) == len(self.tasks)
        counts = self.counts if everyone else self.counts[self.active]
        factors = (weights.to(counts) / counts).unbind()
        terms = zip(self.active, factors, strict=True)
        return torch.stack([sums[task] * factor.to(sums[task]) for task, factor in terms]).sum()

    def stats(self, sums: Sequence[Tensor], gramian: Tensor | None = None) -> StepStats:
        """What the balancer sees.

        Args:
            sums: ``[T]`` for each batch: each task's loss summed over it on this process.
            gramian: ``[T, T]``, if the tasks' gradients were taken.
        """
        total = self.processes.sum(torch.stack(list(sums)).to(self.counts).sum(0))
        rows = [total / self.counts, self.counts, *(() if gramian is None else gramian)]
        index = self.early_stats.index
        values = torch.stack(rows).to(index.device)[:, index]  # moved at once
        return replace(
            self.early_stats,
            losses=values[0],
            counts=values[1],
            gramian=None if gramian is None else values[2:][index],
        )
