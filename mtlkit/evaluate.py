"""Losses and metrics of a model over one split, exact on any number of processes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from mtlkit.loader import Batch
from mtlkit.model import Model
from mtlkit.task import Task

PER_PIXEL = ("mask", "map")
"""Kinds of labels that change with a picture's size, apart from boxes."""


class Comparison(NamedTuple):
    """What :meth:`mtlkit.Task.loss` and :meth:`mtlkit.Task.update` compare."""

    task: Task
    prediction: Tensor
    target: Tensor
    present: Tensor


@torch.inference_mode()
def evaluate(
    model: Model,
    batches: Iterable[Batch],
    accelerator: Accelerator,
    *,
    channels_last: bool = False,
) -> dict[str, float]:
    """Evaluate on batches that hold every sample of a split exactly once as valid.

    Nothing is read back from the device before the last batch is done.

    Args:
        model: on the accelerator's device.
        batches: with ``own`` from :class:`mtlkit.full_size.FullSize`, labels of a place in the
            picture are compared in its own pixels.
        accelerator: of the run.
        channels_last: keep images in that memory order.

    Returns:
        ``<task id>/<metric>`` and ``<task id>/loss``, and ``loss``, the plain sum of the losses;
        NaN where nothing is labelled.
    """
    was_training = model.training
    model.eval()
    tasks = tuple(model.tasks.values())
    metrics = {task.id: task.metric().to(accelerator.device) for task in tasks}
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    totals = torch.zeros((len(tasks), 2), dtype=dtype, device=accelerator.device)
    for batch in batches:
        work = model.prepare(batch, channels_last=channels_last)
        with accelerator.autocast():
            predictions = model(*work.inputs)
        for i, task in enumerate(tasks):
            whole = Comparison(task, predictions[task.id], work.targets[i], work.present[i])
            for sized, *compared in _comparisons(whole, batch.get("own")):
                totals[i] += torch.stack(sized.loss(*compared)).to(dtype)
                sized.update(metrics[task.id], *compared)
    model.train(was_training)
    if accelerator.num_processes > 1:
        totals = accelerator.reduce(totals, reduction="sum")
    losses = (totals[:, 0] / totals[:, 1]).tolist()  # 0 / 0 is NaN: nothing labelled
    results = {}
    for task, loss in zip(tasks, losses, strict=True):
        values = metrics[task.id].compute()
        results.update({f"{task.id}/{name}": float(value) for name, value in values.items()})
        results[f"{task.id}/loss"] = loss
    return {**results, "loss": sum(losses)}


def _comparisons(
    whole: Comparison, own: Sequence[Mapping[str, Any]] | None
) -> Iterator[Comparison]:
    """The whole batch at the network's size, or one by one at the size of each picture."""
    task, predictions = whole.task, whole.prediction
    if own is None or task.kind not in (*PER_PIXEL, "box"):
        yield whole
        return
    assert task.target is not None
    for prediction, labels in zip(predictions[:, None], own, strict=True):
        if task.kind in PER_PIXEL:
            prediction = resized(prediction, labels["size"])
        target, present = (
            labels[key][task.target].to(predictions.device, non_blocking=True)
            for key in ("targets", "present")
        )
        yield Comparison(task.at(labels["size"]), prediction, target, present)


def resized(prediction: Tensor, size: tuple[int, int]) -> Tensor:
    """``[B, C, h, w]`` at another size, bilinearly, as the tasks bring answers to a picture's."""
    if prediction.shape[-2:] == size:
        return prediction
    return F.interpolate(prediction, size, mode="bilinear", align_corners=False, antialias=True)


def score(results: dict[str, float], tasks: Iterable[Task], monitor: str | None) -> float:
    """How good results are, higher is better.

    Args:
        results: of :func:`evaluate`.
        tasks: of the model.
        monitor: the metric that decides; None is the mean of the tasks' primary metrics, those
            where lower is better with a minus sign, those without any label left out.
    """
    if monitor is not None:
        return results[monitor] * sign(monitor, tasks)
    values = [
        results[f"{task.id}/{task.primary}"] * (1 if task.higher_is_better else -1)
        for task in tasks
    ]
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


def sign(metric: str, tasks: Iterable[Task]) -> int:
    """1 where higher is better, -1 where lower is: losses, and what its metric says of itself."""
    for task in tasks:
        if metric == f"{task.id}/{task.primary}":
            return 1 if task.higher_is_better else -1
        if metric in (f"{task.id}/{name}" for name in task.lower_is_better):
            return -1
    return -1 if metric.endswith("loss") else 1
