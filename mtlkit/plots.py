"""Plots of a run: curves, a gallery of fixed samples, attention masks."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

from mtlkit import panels
from mtlkit.data import one_line
from mtlkit.loader import Batch
from mtlkit.model import Model, TaskBatch
from mtlkit.task import Task

CELL = 1.7
"""Inches of one picture in a grid."""
DPI = 110
SMALLEST = 128
"""Pixels of a picture's shorter side that are drawn on: a smaller one is enlarged before."""
LARGEST = 192
"""Pixels of the longer side of a single picture that is kept for the report."""

Columns = dict[str, Sequence[Tensor | None]]


@torch.inference_mode()
def gallery(folder: Path, model: Model, batch: Batch) -> None:
    """Draw ``samples.png``: for each sample the input, and each task's truth and prediction.

    For a backbone with attention also ``attention_<task>.png``: its masks, averaged over channels,
    in the order they are applied. All pictures are kept one by one too, small, in ``samples/``;
    ``samples.json`` says what they show.

    Args:
        folder: where to.
        model: of the run.
        batch: the fixed samples, as the loader makes them.
    """
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    was_training = model.training
    model.eval()
    work, ids = model.prepare(batch), batch["id"]
    clean = [_enlarged(image) for image in batch["image"]]
    columns = _answers(model, work, clean)
    _grid(columns, ids).savefig(folder / "samples.png", dpi=DPI)
    attention = {}
    normalised = (work.inputs[0] - model.mean) / model.std
    for id, masks in model.backbone.attention(normalised).items():
        heat = _attention_columns(masks, clean)
        figure = _grid({"input": clean, **heat}, ids)
        figure.savefig(folder / f"attention_{id}.png", dpi=DPI)
        attention[id] = _keep(folder, f"attention.{id}", heat)
    kept = {"ids": list(ids), "columns": _keep(folder, "sample", columns), "attention": attention}
    (folder / "samples.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    model.train(was_training)


def _answers(model: Model, work: TaskBatch, clean: Sequence[Tensor]) -> Columns:
    """The input, and of each task the truth and the prediction, drawn on clean pictures."""
    raw = {id: value.cpu() for id, value in model(*work.inputs).items()}
    columns: Columns = {"input": [_enlarged(image) for image in _seen(work.inputs[0])]}
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
    return columns


def _truth(task: Task, target: Tensor, image: Tensor) -> Tensor:
    return task.draw(image, task.decode_target(target, image))


def _seen(images: Tensor) -> Iterator[Tensor]:
    """What the network saw, as uint8 pictures."""
    return ((image.expand(3, -1, -1) * 255).round().byte().cpu() for image in images)


def _enlarged(image: Tensor) -> Tensor:
    """A small picture with each pixel as a square of pixels, for finer lines and letters."""
    times = -(-SMALLEST // min(image.shape[-2:]))
    return image.repeat_interleave(times, 1).repeat_interleave(times, 2)


def _keep(folder: Path, prefix: str, columns: Columns) -> list[dict[str, Any]]:
    """Write every picture to a small file; returns what ``samples.json`` says of the columns."""
    kept = []
    for number, (title, pictures) in enumerate(columns.items()):
        names: list[str | None] = []
        for row, picture in enumerate(pictures):
            names.append(None if picture is None else f"samples/{prefix}.{row}.{number}.webp")
            if picture is not None:
                image = Image.fromarray(picture.permute(1, 2, 0).numpy())
                image.thumbnail((LARGEST, LARGEST))
                image.save(folder / str(names[-1]), quality=85)
        kept.append({"title": title.split("\n"), "files": names})
    return kept


def _attention_columns(masks: Sequence[Tensor], images: Sequence[Tensor]) -> Columns:
    colours = matplotlib.colormaps["inferno"]
    columns: Columns = {}
    for number, mask in enumerate(masks, start=1):
        size = list(images[0].shape[-2:])
        heat = transform.resize(mask.float().mean(1, keepdim=True).cpu(), size)[:, 0]  # [B, H, W]
        low, high = float(heat.min()), float(heat.max())
        shown = colours(((heat - low) / max(high - low, 1e-12)).numpy())[..., :3]
        pictures = torch.from_numpy(shown * 255).byte().permute(0, 3, 1, 2)
        columns[f"mask {number}\n{low:.2f} to {high:.2f}"] = list(pictures)
    return columns


def _grid(columns: Columns, names: Sequence[str]) -> Figure:
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
                ax.set_ylabel(one_line(names[row][-20:]), fontsize=6, parse_math=False)
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
    groups = {
        "losses": [(task.id, [f"{task.id}/loss"]) for task in tasks],
        "metrics": [
            (f"{t.id}/{name}", [f"{t.id}/{name}"]) for t in tasks for name in t.metric_names
        ],
        "weights": [("weight of each task's gradient", [f"{task.id}/weight" for task in tasks])],
    }
    for name, group in groups.items():
        _curves(lines, group).savefig(folder / f"{name}.png", dpi=DPI)
    ids = [task.id for task in tasks]
    seen = panels.looks(lines, ids)
    if seen:
        conflicts(seen, ids).savefig(folder / "conflicts.png", dpi=DPI)


def _curves(lines: Sequence[panels.Line], group: Sequence[tuple[str, Sequence[str]]]) -> Figure:
    """Three panels to a row, each with a title and its keys on train and val."""
    rows, cols = -(-len(group) // 3), min(len(group), 3)
    figure = Figure(figsize=(min(4 * len(group), 12), 3 * rows), layout="constrained")
    axes = figure.subplots(rows, cols, squeeze=False).flatten()
    for ax, (title, keys) in zip(axes, group, strict=False):
        for key in keys:
            for split in ("train", "val"):
                if series := panels.points(lines, split, key):
                    panels.draw_line(ax, series, label=split if len(keys) == 1 else key)
        ax.set(title=title, xlabel="optimiser step")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8)
    for ax in axes[len(group) :]:
        ax.set_axis_off()
    return figure


def conflicts(seen: Sequence[panels.Line], ids: Sequence[str]) -> Figure:
    """The cosine of each pair of tasks' gradients over the steps, and the gradients' norms.

    Args:
        seen: lines of metrics.jsonl that have them.
        ids: of the tasks.
    """
    count = len(panels.pairs(ids))
    figure = Figure(figsize=(9, 3.2 + 0.35 * count), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[0.6 + 0.35 * count, 2.4], sharex=True)
    if count:
        image = panels.draw_cosines(upper, seen, ids, "RdBu")
        figure.colorbar(image, ax=upper, label="cosine")
    upper.set_title("do the tasks' gradients agree? (blue: yes, red: they conflict)", fontsize=10)
    for id in ids:
        if series := panels.points(seen, "train", f"{id}/gradient_norm"):
            panels.draw_line(lower, series, label=id)
    lower.set(yscale="log", xlabel="optimiser step", ylabel="gradient norm")
    lower.legend(fontsize=8)
    return figure
