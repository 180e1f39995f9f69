"""Lookahead: what one task's step does to every task's loss, measured without taking the step."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mtlkit.gradients import Rows, gramian
from mtlkit.model import Model, TaskBatch
from mtlkit.processes import Processes
from mtlkit.sharing import Sharing, find_sharing, kept_buffers
from mtlkit.window import Window

WHOLE = "all"
PARTS = ("early", "middle", "late")


@dataclass(frozen=True)
class Look:
    """What was measured at one state of the network; T tasks, float64, on the CPU.

    Args:
        step: optimiser steps done before.
        losses: ``[T]`` before any step, of the batches on which effects were measured.
        affinity: ``[T, T]``: 1 - L_j after a step on task i / L_j before, in row i and column j;
            above 0 where the step helps. NaN where a task has no label.
        cosines: ``[T, T]`` of the tasks' gradients, at all shared parameters and at each part.
        norms: ``[T]`` of the gradients at all shared parameters.
    """

    step: int
    losses: Tensor
    affinity: Tensor
    cosines: dict[str, Tensor]
    norms: Tensor


class Lookahead:
    """Measures how the tasks' gradients agree, and what one task's step does to the others.

    Parameters, buffers, optimiser and random numbers are left bit for bit as they were. All is
    computed in single precision or better, however the network is trained: an effect may be a
    thousandth of a percent.

    Args:
        model: in training mode, as its batch statistics are those of a training step.
        lr: of the step, which is a plain gradient step.
        optimizer: takes the step instead, from its current state and at its own learning rate.

    Reference: Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning",
    NeurIPS 2021, arXiv 2109.04617: the affinity; as there a step moves shared parameters alone.
    Here random numbers such as dropout's are the same before and after it. The cosines are those of
    Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, arXiv 2001.06782, where
    tasks conflict in a step when theirs is below 0.
    """

    def __init__(self, model: Model, *, lr: float, optimizer: Optimizer | None = None) -> None:
        self.model = model
        self.tasks = tuple(model.tasks.values())
        self.sharing, layers = in_forward_order(model)
        self.parameters = [parameter for layer in layers for parameter in layer]
        self.lr = lr
        self.optimizer = optimizer
        self.processes = Processes(device=model.device)
        self.columns = _columns(layers)

    def __call__(
        self, batches: Sequence[TaskBatch], others: Sequence[TaskBatch] | None = None, *, step: int
    ) -> Look:
        """Measure.

        Args:
            batches: of one optimiser step, whose gradients are taken.
            others: on which the losses are compared; by default the same.
            step: optimiser steps done before.
        """
        window = self._window(batches, step)
        compared = window if others is None else self._window(others, step)
        size = len(self.tasks)
        with kept_buffers(self.model):
            rows = self._rows(window)
            before = self._losses(compared)
            after = torch.full((size, size), torch.nan, dtype=torch.float64)
            for task in window.active:
                with self._moved(rows, task):
                    after[task] = self._losses(compared)
        grams = {
            part: self._known(gramian(rows.rows_TP[:, columns]), window)
            for part, columns in self.columns.items()
        }
        cosines = {part: cosine(gram) for part, gram in grams.items()}
        norms = grams[WHOLE].diagonal().sqrt()
        return Look(step, before, 1 - after / before, cosines, norms)

    def _window(self, batches: Sequence[TaskBatch], step: int) -> Window:
        home = torch.device("cpu")
        return Window(batches, self.tasks, self.processes, home, step=step, epoch=0, seed=0)

    def _sums(self, batch: TaskBatch) -> list[Tensor]:
        predictions = self.model(*batch.inputs)
        return [
            task.loss(predictions[task.id], target, present)[0]
            for task, target, present in zip(self.tasks, batch.targets, batch.present, strict=True)
        ]

    def _rows(self, window: Window) -> Rows:
        """Each task's gradient at the shared parameters."""
        rows = Rows(self.parameters, len(self.tasks), self.processes)
        with self._same_random_numbers(), torch.enable_grad():
            for batch in window.batches:
                sums = self._sums(batch)
                for task in window.active:
                    last = task == window.active[-1]
                    rows.add(task, window.mean(sums, task), (), keep_graph=not last)
        return rows

    @torch.no_grad()
    def _losses(self, window: Window) -> Tensor:
        """``[T]``, NaN for a task without labels."""
        with self._same_random_numbers():
            sums = [torch.stack(self._sums(batch)) for batch in window.batches]
        losses = torch.full((len(self.tasks),), torch.nan, dtype=torch.float64)
        losses[window.active] = window.stats(sums).losses.to(losses)
        return losses

    def _same_random_numbers(self) -> AbstractContextManager[None]:
        """Random numbers go on from where they are, and afterwards are there again."""
        device = self.model.device
        return torch.random.fork_rng([device] if device.type == "cuda" else [])

    @contextmanager
    def _moved(self, rows: Rows, task: int) -> Iterator[None]:
        """The shared parameters after a step on one task alone, for a while."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        try:
            self._move(rows.views[task], task)
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_([*self.parameters], before)

    @torch.no_grad()
    def _move(self, gradient: Sequence[Tensor], task: int) -> None:
        if self.optimizer is None:
            torch._foreach_add_([*self.parameters], list(gradient), alpha=-self.lr)
            return
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        # the parameters are the same, the state is its own
        trial = copy.deepcopy(self.optimizer, {id(p): p for p in trained})
        for parameter, part in zip(self.parameters, gradient, strict=True):
            parameter.grad = part if task in self.sharing.users[parameter] else None
        trial.step()
        for parameter in self.parameters:
            parameter.grad = None

    def _known(self, gram: Tensor, window: Window) -> Tensor:
        """``[T, T]``, NaN for a task without labels."""
        out = torch.full_like(gram, torch.nan, device="cpu")
        index = torch.tensor(window.active)
        out[index[:, None], index] = gram.cpu()[index[:, None], index]
        return out


def cosine(gram: Tensor) -> Tensor:
    """``[T, T]`` cosines from inner products; NaN where a gradient is zero."""
    norms = gram.diagonal().sqrt()
    lengths = norms[:, None] * norms
    return torch.where(lengths > 0, gram / lengths, torch.nan)


def in_forward_order(model: Model) -> tuple[Sharing, list[list[nn.Parameter]]]:
    """Which parameters are shared, by layer, in the order in which a forward pass comes to them."""
    calls: dict[nn.Module, int] = {}

    def note(module: nn.Module, inputs: object) -> None:
        calls.setdefault(module, len(calls))

    handles = [module.register_forward_pre_hook(note) for module in model.modules()]
    try:
        sharing = find_sharing(model)
    finally:
        for handle in handles:
            handle.remove()
    shared = set(sharing.shared)
    owners = [(module, list(module.parameters(recurse=False))) for module in model.modules()]
    owners.sort(key=lambda owner: calls.get(owner[0], -1))  # not called: it holds the others
    layers = []
    for _, parameters in owners:
        layers.append([p for p in parameters if p in shared])
        shared -= {*layers[-1]}  # a layer that is used twice counts where it is first
    return sharing, [layer for layer in layers if layer]


def _columns(layers: Sequence[Sequence[nn.Parameter]]) -> dict[str, slice]:
    """Where all parameters stand in a row, and those of each third of the layers."""
    columns = {WHOLE: slice(0, sum(p.numel() for layer in layers for p in layer))}
    if len(layers) < len(PARTS):
        return columns
    start = 0
    for number, part in enumerate(PARTS):
        first, end = (len(layers) * n // len(PARTS) for n in (number, number + 1))
        length = sum(p.numel() for layer in layers[first:end] for p in layer)
        columns[part] = slice(start, start + length)
        start += length
    return columns
