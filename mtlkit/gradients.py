"""Gradients: each task's own gradient, kept as a row, and what becomes of the rows together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from mtlkit.processes import Processes

BLOCK = 4096
"""Columns whose products are summed in the rows' own precision; the blocks' sums are float64."""


def gramian(rows_Tp: Tensor) -> Tensor:
    """``[T, T]`` float64 inner products of the rows."""
    whole = rows_Tp.shape[1] // BLOCK * BLOCK
    blocks = rows_Tp[:, :whole].reshape(len(rows_Tp), -1, BLOCK).transpose(0, 1)  # [n, T, BLOCK]
    rest = rows_Tp[:, whole:].to(torch.float64)
    return torch.bmm(blocks, blocks.mT).to(torch.float64).sum(0) + rest @ rest.T


class Rows:
    """The Jacobian of the tasks' mean losses: a row per task, in one flat buffer ``[T, P]``.

    On several processes each sums the rows over all of them for its share of the columns alone,
    so that no more than (T + 1) / 2 times what a plain all-reduce moves is on the wire.

    Args:
        parameters: the P columns.
        tasks: number of rows T.
        processes: that share the columns.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], tasks: int, processes: Processes
    ) -> None:
        self.parameters = list(parameters)
        self.processes = processes
        length = sum(p.numel() for p in self.parameters)
        part = -(-length // (BLOCK * processes.count)) * BLOCK  # padded with zeros
        like = self.parameters[0] if self.parameters else torch.zeros(0)
        self.rows_TP = torch.zeros(
            tasks, part * processes.count, dtype=like.dtype, device=like.device
        )
        self.mine_Tp = self.rows_TP if processes.count == 1 else self.rows_TP.new_zeros(tasks, part)
        self.views = [self._views(row) for row in self.rows_TP]
        self.states: dict[str, Tensor] = {}

    def _views(self, row: Tensor) -> list[Tensor]:
        """Where each parameter's gradient stands in a row, in the parameter's memory order."""
        views, start = [], 0
        for p in self.parameters:
            views.append(row[start : start + p.numel()].as_strided(p.shape, p.stride()))
            start += p.numel()
        return views

    def clear(self) -> None:
        """Begin with rows of zeros."""
        self.rows_TP.zero_()

    def add(self, task: int, loss: Tensor, others: Sequence[Tensor], *, keep_graph: bool) -> None:
        """Add the gradient of ``loss`` to a row, and to ``grad`` of the tensors in ``others``."""
        for parameter, view in zip(self.parameters, self.views[task], strict=True):
            parameter.grad = view
        torch.autograd.backward(loss, inputs=[*self.parameters, *others], retain_graph=keep_graph)
        for parameter in self.parameters:
            parameter.grad = None

    def exchange(self) -> None:
        """Sum the rows over all processes, for this process's columns."""
        if self.processes.count > 1:
            for mine_p, row_P in zip(self.mine_Tp, self.rows_TP, strict=True):
                mine_p.copy_(self.processes.share(row_P))

    def gramian(self) -> Tensor:
        """``[T, T]`` float64, over all columns of all processes; after :meth:`exchange`."""
        return self.processes.sum(gramian(self.mine_Tp))

    def active(self, tasks: Sequence[int]) -> Tensor:
        """``[A, p]``: these rows, without a copy if they are all."""
        return self.mine_Tp if len(tasks) == len(self.mine_Tp) else self.mine_Tp[list(tasks)]

    def weigh(self, weights: Mapping[int, float]) -> Tensor:
        """``[p]``: the weighted sum of the rows, written over one of them."""
        return sum_of((self.mine_Tp[task], weight) for task, weight in weights.items())

    def give(self, gradient_p: Tensor) -> None:
        """Make this, gathered from all processes, the parameters' gradient."""
        self.processes.gather(gradient_p, self.rows_TP[0])
        for parameter, view in zip(self.parameters, self.views[0], strict=True):
            parameter.grad = view

    # What a balancer sees of the columns: the protocol mtlkit.Columns.

    def rand(self, generator: torch.Generator) -> Tensor:
        """``[p]`` uniform numbers; all are drawn everywhere, so that each column has its own."""
        drawn = torch.rand(self.rows_TP.shape[1], generator=generator)
        part = self.mine_Tp.shape[1]
        return drawn[self.processes.rank * part :][:part].to(self.mine_Tp.device)

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over all processes."""
        return self.processes.sum(values)

    def state(self, name: str) -> Tensor:
        """``[T, p]`` kept from step to step, zeros at first."""
        if name not in self.states:
            self.states[name] = torch.zeros_like(self.mine_Tp)
        return self.states[name]

    def saved_states(self) -> dict[str, Tensor]:
        """Each state whole, ``[T, P]`` on the CPU, without the padding."""
        length = sum(p.numel() for p in self.parameters)
        saved = {}
        for name, state_Tp in self.states.items():
            rows = []
            for part_p in state_Tp:
                whole_P = self.rows_TP.new_empty(self.rows_TP.shape[1])
                self.processes.gather(part_p, whole_P)
                rows.append(whole_P[:length].cpu())
            saved[name] = torch.stack(rows)
        return saved

    def load_states(self, saved: Mapping[str, Tensor]) -> None:
        """Take up :meth:`saved_states`, on any number of processes."""
        part = self.mine_Tp.shape[1]
        start = self.processes.rank * part
        for name, whole_TP in saved.items():
            mine = whole_TP[:, start : start + part]
            self.state(name)[:, : mine.shape[1]] = mine.to(self.mine_Tp)


class Cut:
    """The backbone's shared features of one batch, cut off from what computed them.

    The tasks' gradients go back to the cut, then their weighted sum goes on, once.

    Args:
        shared: what the backbone's ``encode`` returned: tensors, nested in any way.
        tasks: number of tasks T.
    """

    def __init__(self, shared: Any, tasks: int) -> None:
        self.tasks = tasks
        leaves, self._structure = tree_flatten(shared)
        self.before = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
        self.after = [x.detach().requires_grad_() for x in self.before]
        cut = iter(self.after)
        self._leaves = [
            next(cut) if isinstance(x, Tensor) and x.requires_grad else x for x in leaves
        ]
        self.rows: dict[int, list[Tensor | None]] = {}

    @property
    def features(self) -> Any:
        """As ``encode`` returned them, but cut off."""
        return tree_unflatten(self._leaves, self._structure)

    def take(self, task: int) -> None:
        """Move what the last backward pass left at the cut to this task's row."""
        self.rows[task] = [x.grad for x in self.after]  # None where it does not look
        for x in self.after:
            x.grad = None

    def gramian(self) -> Tensor:
        """``[T, T]`` float64 inner products of the rows, over this batch."""
        device = self.after[0].device
        out = torch.zeros(self.tasks, self.tasks, dtype=torch.float64, device=device)
        for i in range(len(self.after)):
            parts = self._parts(i)
            if parts:
                rows = torch.stack([part.reshape(-1) for part in parts.values()])
                index = torch.tensor(list(parts), device=device)
                out[index[:, None], index] += gramian(rows.float() if rows.itemsize < 4 else rows)
        return out

    def go_on(self, weights: Mapping[int, float]) -> None:
        """Send the weighted sum of the rows back to the parameters before the cut."""
        weighted = [self._weighted(i, weights) for i in range(len(self.before))]
        self.rows.clear()
        pairs = [(x, g) for x, g in zip(self.before, weighted, strict=True) if g is not None]
        if pairs:
            torch.autograd.backward([x for x, _ in pairs], [g for _, g in pairs])

    def _weighted(self, i: int, weights: Mapping[int, float]) -> Tensor | None:
        parts = self._parts(i)
        return sum_of((part, weights[task]) for task, part in parts.items()) if parts else None

    def _parts(self, i: int) -> dict[int, Tensor]:
        """The gradients at one of the features, of the tasks that look at it."""
        rows = {task: row[i] for task, row in self.rows.items()}
        return {task: part for task, part in rows.items() if part is not None}


def sum_of(terms: Iterable[tuple[Tensor, float]]) -> Tensor:
    """The sum of tensors, each times a number; the first is overwritten."""
    (first, weight), *rest = terms
    out = first.mul_(weight)
    for tensor, factor in rest:
        out.add_(tensor, alpha=factor)
    return out
