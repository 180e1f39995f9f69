"""Plots of a run: curves, a gallery of fixed samples, attention masks."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

from mtlkit.loader import Batch
from mtlkit.model import Model
from mtlkit.task import Task

CELL = 1.7
"""Inches of one picture in a grid."""
DPI = 110


@torch.inference_mode()
def gallery(folder: Path, model: Model, batch: Batch) -> None:
    """Draw ``samples.png``: for each sample the input, and each task's truth and prediction.

    For a backbone with attention also ``attention_<task>.png``: its masks, averaged over channels,
    in the order they are applied.

    Args:
        folder: where to.
        model: of the run.
        batch: the fixed samples, as the loader makes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    was_training = model.training
    model.eval()
    work = model.prepare(batch)
    raw = {id: value.cpu() for id, value in model(*work.inputs).items()}
    columns: dict[str, list[Tensor | None]] = {"input": _seen(work.inputs[0])}
    clean = list(batch["image"])
    for i, task in enumerate(model.tasks.values()):
        targets, present = work.targets[i].cpu(), work.present[i].tolist()
        columns[f"{task.id}\ntruth"] = [
            _truth(task, target, image) if has else None
            for target, image, has in zip(targets, clean, present, strict=True)
        ]
        columns[f"{task.id}\npredicted"] = [
            task.draw(image, task.decode(prediction, image))
            for prediction, image in zip(raw[task.id], clean, strict=True)
        ]
    _grid(columns, batch["id"]).savefig(folder / "samples.png", dpi=DPI)
    normalised = (work.inputs[0] - model.mean) / model.std
    for id, masks in model.backbone.attention(normalised).items():
        figure = _grid(_attention_columns(masks, clean), batch["id"])
        figure.savefig(folder / f"attention_{id}.png", dpi=DPI)
    model.train(was_training)


def _truth(task: Task, target: Tensor, image: Tensor) -> Tensor:
    return task.draw(image, task.decode_target(target, image))


def _seen(images: Tensor) -> list[Tensor | None]:
    """What the network saw, as uint8 pictures."""
    return [(image.expand(3, -1, -1) * 255).round().byte().cpu() for image in images]


def _attention_columns(
    masks: Sequence[Tensor], images: Sequence[Tensor]
) -> dict[str, list[Tensor | None]]:
    colours = matplotlib.colormaps["inferno"]
    columns: dict[str, list[Tensor | None]] = {"input": list(images)}
    for number, mask in enumerate(masks, start=1):
        size = list(images[0].shape[-2:])
        heat = transform.resize(mask.float().mean(1, keepdim=True).cpu(), size)[:, 0]  # [B, H, W]
        low, high = float(heat.min()), float(heat.max())
        shown = colours(((heat - low) / max(high - low, 1e-12)).numpy())[..., :3]
        pictures = torch.from_numpy(shown * 255).byte().permute(0, 3, 1, 2)
        columns[f"mask {number}\n{low:.2f} to {high:.2f}"] = list(pictures)
    return columns


def _grid(columns: Mapping[str, Sequence[Tensor | None]], names: Sequence[str]) -> Figure:
    """A figure with a column of pictures under each title; a missing one is said to be missing."""
    rows, cols = len(names), len(columns)
    sizes = [p.shape[-2:] for pictures in columns.values() for p in pictures if p is not None]
    tall = CELL * max((height / width for height, width in sizes), default=1.0)
    figure = Figure(figsize=(CELL * cols, (tall + 0.1) * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, cols, squeeze=False)
    for col, (title, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            ax = axes[row][col]
            ax.set(xticks=[], yticks=[])
            if row == 0:
                ax.set_title(title, fontsize=9)
            if col == 0:
                ax.set_ylabel(names[row][-20:], fontsize=6)
            if picture is None:
                ax.text(0.5, 0.5, "no label", ha="center", va="center", fontsize=8, color="grey")
            else:
                ax.imshow(picture.permute(1, 2, 0).numpy())
    return figure


def curves(folder: Path, history: Iterable[Mapping[str, Any]], tasks: Iterable[Task]) -> None:
    """Draw ``losses.png``, ``metrics.png`` and ``weights.png`` from the lines of metrics.jsonl.

    Where the tasks' gradients were looked at also ``conflicts.png``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = list(history)
    tasks = list(tasks)
    splits = [split for split in ("train", "val") if any(x["split"] == split for x in lines)]
    groups = {
        "losses": [(task.id, [f"{task.id}/loss"]) for task in tasks],
        "metrics": [
            (f"{t.id}/{name}", [f"{t.id}/{name}"]) for t in tasks for name in t.metric_names
        ],
        "weights": [("weight of each task's gradient", [f"{task.id}/weight" for task in tasks])],
    }
    for name, panels in groups.items():
        figure = Figure(figsize=(min(4 * len(panels), 12), 3 * -(-len(panels) // 3)),
                        layout="constrained")  # fmt: skip
        axes = figure.subplots(-(-len(panels) // 3), min(len(panels), 3), squeeze=False).flatten()
        for ax, (title, keys) in zip(axes, panels, strict=False):
            for key in keys:
                for split in splits:
                    _line(ax, lines, key, split, label=split if len(keys) == 1 else key)
            ax.set(title=title, xlabel="optimiser step")
            if ax.get_legend_handles_labels()[0]:
                ax.legend(fontsize=8)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        figure.savefig(folder / f"{name}.png", dpi=DPI)
    ids = [task.id for task in tasks]
    looks = [line for line in lines if f"{ids[0]}/gradient_norm" in line]
    if looks:
        conflicts(looks, ids).savefig(folder / "conflicts.png", dpi=DPI)


def conflicts(looks: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> Figure:
    """The cosine of each pair of tasks' gradients over the steps, and the gradients' norms.

    Args:
        looks: lines of metrics.jsonl that have them.
        ids: of the tasks.
    """
    pairs = [f"{a}+{b}" for a, b in itertools.combinations(ids, 2)]
    figure = Figure(figsize=(9, 3.2 + 0.35 * len(pairs)), layout="constrained")
    heights = [0.6 + 0.35 * len(pairs), 2.4]
    upper, lower = figure.subplots(2, 1, height_ratios=heights, sharex=True)
    steps = [line["step"] for line in looks]
    if pairs:
        cosines = [[_number(line.get(f"{pair}/cosine")) for line in looks] for pair in pairs]
        half = (steps[-1] - steps[-2]) / 2 if len(steps) > 1 else 0.5
        image = upper.imshow(
            cosines, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest",
            extent=(steps[0] - half, steps[-1] + half, len(pairs) - 0.5, -0.5),
        )  # fmt: skip
        figure.colorbar(image, ax=upper, label="cosine")
    upper.set_yticks(range(len(pairs)), pairs)
    upper.set_title("do the tasks' gradients agree? (blue: yes, red: they conflict)", fontsize=10)
    for id in ids:
        norms = [_number(line.get(f"{id}/gradient_norm")) for line in looks]
        lower.plot(steps, norms, label=id, marker="." if len(steps) < 30 else "")
    lower.set(yscale="log", xlabel="optimiser step", ylabel="gradient norm")
    lower.legend(fontsize=8)
    return figure


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _line(ax: Axes, lines: Iterable[Mapping[str, Any]], key: str, split: str, label: str) -> None:
    points = [(x["step"], x[key]) for x in lines if x["split"] == split and x.get(key) is not None]
    if points:
        ax.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 30 else "")
