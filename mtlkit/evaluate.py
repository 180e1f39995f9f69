"""Losses and metrics of a model over one split, exact on any number of processes."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator

from mtlkit.loader import Batch
from mtlkit.model import Model
from mtlkit.task import Task


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
            prediction = predictions[task.id]
            target, present = work.targets[i], work.present[i]
            totals[i] += torch.stack(task.loss(prediction, target, present)).to(dtype)
            task.update(metrics[task.id], prediction, target, present)
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
    return -1 if metric.endswith("loss") else 1
