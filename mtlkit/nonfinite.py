"""A loss or gradient that is not finite: noticed, traced to its samples, kept from the network."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch import Tensor, nn

from mtlkit.errors import RunError
from mtlkit.files import replace as replace_file
from mtlkit.model import Model, TaskBatch
from mtlkit.sharing import kept_buffers
from mtlkit.task import Task
from mtlkit.window import Window

Policy = Literal["raise", "skip", "drop-task"]
Predict = Callable[[TaskBatch], Mapping[str, Tensor]]
What = Literal["loss", "gradient"]

IN_A_ROW = 10
"""Steps in a row after which a run is ended, whatever is wanted: its network is beyond help."""


@dataclass(frozen=True)
class Fault:
    """Where a number that is not finite came from.

    Args:
        step: of the run.
        tasks: by the ids of those it came from, whether the ``loss`` or its ``gradient``; empty if
            it did not come again when it was looked for.
        samples: ids of the samples it came from, on all processes.
        batch: of this process, if it is the first with such samples.
    """

    step: int
    tasks: Mapping[str, What]
    samples: tuple[str, ...]
    batch: TaskBatch | None

    def __str__(self) -> str:
        words = [f"the {what} of task '{id}'" for id, what in self.tasks.items()]
        what = " and ".join(words) or "the gradient of the weighted losses"
        several = "are" if len(words) > 1 else "is"
        shown = ", ".join(self.samples[:5]) + ", ..." * (len(self.samples) > 5)
        where = f" for the sample{'s' * (len(self.samples) != 1)} {shown}" if self.samples else ""
        return f"{what} {several} not finite at step {self.step}{where}"


class Watch:
    """Sees to it that no number that is not finite reaches the parameters.

    Where a device works behind our back, an optimiser that can leave out a step by itself is told
    to, and the reason is looked up when the next step's work is under way: nobody waits.

    Args:
        policy: whether to ``raise``, to ``skip`` the step, or to do it without the task at fault.
        accelerator: of the run.
        model: that is trained.
        optimizer: prepared.
    """

    def __init__(
        self, policy: Policy, accelerator: Accelerator, model: Model, optimizer: Any
    ) -> None:
        self.policy = policy
        self.model = model
        self.optimizer = optimizer.optimizer
        self.tell: Callable[[Fault], str] = lambda fault: ""
        """Called about each fault, on every process; what it returns goes into an error."""
        self.deferred = (
            policy == "raise"
            and accelerator.device.type != "cpu"
            and accelerator.scaler is None
            and getattr(self.optimizer, "_step_supports_amp_scaling", False)
        )
        self._open: tuple[Window, Tensor] | None = None
        self._faulty_steps: list[int] = []

    @property
    def may_undo(self) -> bool:
        """Whether a step may be taken back, so that what it changes must be kept."""
        return self.policy != "raise"

    def check(self, window: Window, finite: Tensor, predict: Predict) -> Fault | None:
        """What is wrong with a step, before it moves anything, if that is known yet.

        Args:
            window: of the step.
            finite: whether its losses and gradients are, one boolean.
            predict: raw predictions for a batch.

        Raises:
            RunError: this step is at fault, or an earlier one that was left open; or too many in
                a row were.
        """
        if self.deferred:
            self.settle(predict)
            self._open = (window, finite)
            self.optimizer.found_inf = (~finite).float()
            return None
        return None if bool(finite) else self._find(window, predict)

    def settle(self, predict: Predict) -> None:
        """Find out what was left open."""
        left, self._open = self._open, None
        if left is not None and not bool(left[1]):
            self._find(left[0], predict)

    def _find(self, window: Window, predict: Predict) -> Fault:
        fault = find_fault(self.model, predict, window.batches, window.active, step=window.step)
        note = self.tell(fault)
        before = [step for step in self._faulty_steps if step != window.step][-IN_A_ROW:]
        self._faulty_steps = [*before, window.step]
        endless = before == list(range(window.step - IN_A_ROW, window.step))
        if self.policy == "raise" or endless:
            times = f", as in the {IN_A_ROW} steps before" if endless else ""
            raise RunError(f"{fault}{times}{note}; try a lower --lr, --clip 1, or --precision no")
        return fault


def find_fault(
    model: Model,
    predict: Predict,
    batches: Sequence[TaskBatch],
    active: Sequence[int],
    *,
    step: int,
) -> Fault:
    """Look at each task and sample by itself; all processes must call it at once.

    Args:
        model: in training mode, as it was before the step.
        predict: raw predictions for a batch.
        batches: of this process.
        active: positions of the tasks with labels.
        step: of the run.
    """
    tasks: dict[str, What] = {}
    samples: list[str] = []
    first = None
    everything = [p for p in model.parameters() if p.requires_grad]
    every_task = list(model.tasks.values())
    for batch in batches:
        with kept_buffers(model), torch.random.fork_rng():
            predictions = predict(batch)
            for i in active:
                task = every_task[i]
                labels = batch.targets[i], batch.present[i]
                found = _look(task, predictions[task.id], *labels, everything)
                if found is not None:
                    what, which = found
                    tasks[task.id] = what
                    samples += [batch.ids[i] for i in which if i < len(batch.ids)]
                    first = first or batch
    everyone = gather_object([(tasks, samples)])
    owner = next((rank for rank, (found, _) in enumerate(everyone) if found), -1)
    mine = first is not None and (len(everyone) == 1 or owner == torch.distributed.get_rank())
    merged: dict[str, What] = {}
    for found, _ in everyone:
        merged |= found
    ids = tuple(dict.fromkeys(id for _, found in everyone for id in found))
    return Fault(
        step, {id: merged[id] for id in model.tasks if id in merged}, ids, first if mine else None
    )


def _look(
    task: Task,
    prediction: Tensor,
    target: Tensor,
    present: Tensor,
    parameters: Sequence[nn.Parameter],
) -> tuple[What, list[int]] | None:
    """Whether a task's loss over a batch or its gradient is not finite, and for which samples."""

    def loss(of: Tensor) -> Tensor:
        return task.loss(prediction, target, of)[0]

    def bad_gradient(value: Tensor) -> bool:
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return not all(bool(g.isfinite().all()) for g in gradients if g is not None)

    whole = loss(present)
    if not bool(whole.isfinite()):
        return "loss", [i for i, only in _singles(present) if not bool(loss(only).isfinite())]
    if whole.requires_grad and bad_gradient(whole):
        return "gradient", [i for i, only in _singles(present) if bad_gradient(loss(only))]
    return None


def _singles(present: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each labelled sample, and ``present`` with that one alone."""
    for i in present.nonzero().flatten().tolist():
        only = torch.zeros_like(present)
        only[i] = True
        yield i, only


def without(batch: TaskBatch, tasks: Sequence[int]) -> TaskBatch:
    """The batch as if nothing in it had a label for these tasks."""
    return replace(
        batch,
        present=[torch.zeros_like(p) if i in tasks else p for i, p in enumerate(batch.present)],
        labelled=[has and i not in tasks for i, has in enumerate(batch.labelled)],
    )


def save_batch(file: Path, batch: TaskBatch, tasks: Sequence[str], *, step: int) -> None:
    """Write what the network saw and should have said: ``input.N``, ``ID.target``, ``ID.present``.

    The file's metadata has the ``step`` and the ``ids`` of the samples, as JSON.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {f"input.{i}": images for i, images in enumerate(batch.inputs)}
    for id, target, present in zip(tasks, batch.targets, batch.present, strict=True):
        tensors |= {f"{id}.target": target, f"{id}.present": present}
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    notes = {"step": str(step), "ids": json.dumps(list(batch.ids))}
    replace_file(file, lambda fresh: save_file(plain, fresh, notes))
