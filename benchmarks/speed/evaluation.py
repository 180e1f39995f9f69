"""What metrics cost in an evaluation, and segmentation's against torchmetrics' own.

A whole evaluation of images that are loaded already, and beside it the metrics of the same
predictions alone: their ratio is the metrics' share. Then one update of our segmentation metrics,
from logits, against those of torchmetrics' classes for the same three numbers.

    python benchmarks/speed/evaluation.py --output evaluation.json
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score, MulticlassF1Score, MulticlassJaccardIndex

from mtlkit import DatasetSpec, TargetSpec, api, measure
from mtlkit.build import create
from mtlkit.config import from_mapping
from mtlkit.evaluate import evaluate
from mtlkit.loader import Batch
from mtlkit.measure import Work
from mtlkit.session import Run
from mtlkit.settings import Choice

WHOLE = "evaluation"
OURS, THEIRS, THEIRS_UNVALIDATED = "mtlkit", "torchmetrics", "torchmetrics, validate_args=False"
Compared = list[tuple[Tensor, Tensor, Tensor]]


def evaluation(run: Run, batches: list[Batch]) -> Work:
    """All of it, but for the loading of images."""
    layout = run.settings.channels_last
    return partial(evaluate, run.model, batches, run.accelerator, channels_last=layout)


@torch.inference_mode()
def predictions(run: Run, batches: list[Batch]) -> dict[str, Compared]:
    """What each task's metric gets in that evaluation."""
    found: dict[str, Compared] = {id: [] for id in run.model.tasks}
    run.model.eval()
    for batch in batches:
        work = run.model.prepare(batch, channels_last=run.settings.channels_last)
        with run.accelerator.autocast():
            predicted = run.model(*work.inputs)
        for id, target, present in zip(found, work.targets, work.present, strict=True):
            found[id].append((predicted[id], target, present))
    return found


def metrics(run: Run, compared: dict[str, Compared]) -> Work:
    """Those tasks' metrics alone, to the last number."""

    @torch.inference_mode()
    def work() -> None:
        for id, several in compared.items():
            task = run.model.tasks[id]
            metric = task.metric().to(run.accelerator.device)
            for one in several:
                task.update(metric, *one)
            for value in metric.compute().values():
                float(value)

    return work


def ours(logits: Tensor, truth: Tensor) -> Work:
    """One update of our metrics."""
    size = (truth.shape[1], truth.shape[2])
    classes = tuple(map(str, range(logits.shape[1])))
    spec = DatasetSpec({"seg": TargetSpec("mask", classes)})
    task = create("task", Choice("seg"), "seg", spec, size)
    metric = task.metric().to(logits.device)
    present = torch.ones(len(truth), dtype=torch.bool, device=logits.device)
    return partial(task.update, metric, logits, truth, present)


def their_metrics(classes: int, *, validate_args: bool) -> list[Metric]:
    """Their classes for the two kinds of mean IoU and F1, as ours define them."""
    common: dict[str, Any] = {"ignore_index": 255, "validate_args": validate_args}
    several = {**common, "num_classes": classes}
    return [
        MulticlassJaccardIndex(**several, average="macro"),
        MulticlassJaccardIndex(**several, average="weighted"),
        BinaryF1Score(**common) if classes == 2 else MulticlassF1Score(**several, average="macro"),
    ]


def update_theirs(metrics: list[Metric], logits: Tensor, truth: Tensor) -> None:
    """Feed them one batch, with as little work in common as can be: they take no uint8."""
    predicted, truth = logits.max(1).indices, truth.long()
    for metric in metrics:
        metric.update(predicted, truth)


def theirs(logits: Tensor, truth: Tensor, *, validate_args: bool) -> Work:
    """One update of theirs."""
    metrics = their_metrics(logits.shape[1], validate_args=validate_args)
    return partial(update_theirs, [metric.to(logits.device) for metric in metrics], logits, truth)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", default="seg,cls,bbox")
    parser.add_argument("--backbone", default="timm")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=64, help="in the evaluation")
    parser.add_argument("--classes", type=int, default=2, help="of the segmentation alone")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    options = {
        "tasks": args.tasks, "backbone": args.backbone, "image_size": args.size,
        "batch_size": args.batch, "workers": 0,
        "data": {"name": "shapes", "train": 1, "val": 1, "test": args.images},
    }  # fmt: skip
    run = api.assemble(from_mapping(options))
    device, batches = run.accelerator.device, list(run.loader("test"))
    compared = predictions(run, batches)
    makers = {WHOLE: partial(evaluation, run, batches),
              "all metrics": partial(metrics, run, compared)}  # fmt: skip
    makers |= {f"of {id}": partial(metrics, run, {id: some}) for id, some in compared.items()}
    whole = measure.in_turns(makers, WHOLE, rounds=args.rounds, device=device)
    shares = {name: f"{100 * measure.summary(cost, whole[WHOLE])['ratio']:.2f} %"
              for name, cost in whole.items()}  # fmt: skip
    print(measure.table(whole, WHOLE, {"share": shares}), end="\n\n")

    random = torch.Generator().manual_seed(0)
    shape = (args.batch, args.classes, args.size, args.size)
    logits = torch.randn(shape, generator=random).to(device, memory_format=torch.channels_last)
    truth = torch.randint(0, args.classes, (shape[0], *shape[2:]), generator=random).byte()
    truth[:, : args.size // 8] = 255
    given = (logits, truth.to(device))
    updates = {
        OURS: partial(ours, *given),
        THEIRS: partial(theirs, *given, validate_args=True),
        THEIRS_UNVALIDATED: partial(theirs, *given, validate_args=False),
    }
    alone = measure.in_turns(updates, OURS, rounds=args.rounds, device=device)
    print(measure.table(alone, OURS))
    if args.output:
        tree = {"options": {key: str(value) for key, value in vars(args).items()},
                "evaluation": measure.numbers(whole, WHOLE),
                "segmentation": measure.numbers(alone, OURS)}  # fmt: skip
        measure.write(args.output, " ".join(["python", *sys.argv]), device, tree)


if __name__ == "__main__":
    main()
