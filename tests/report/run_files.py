"""Folders of runs that never ran: all that a report reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

SIGNS = {"seg": {"miou": 1, "f1": 1}, "bbox": {"l2": -1, "iou": 1}}
PRIMARY = {"seg": "miou", "bbox": "iou"}
TASKS = {
    "seg": {"name": "seg", "target": None, "head": {"name": "dense", "decoder": "unet"}},
    "bbox": {"name": "bbox", "target": None, "head": {"name": "spatial", "num_levels": 2}},
}


def scores(ids: Sequence[str] = ("seg", "bbox"), **given: float) -> dict[str, float]:
    """Some of every metric; ``given`` by name without the task."""
    values = {"miou": 0.5, "f1": 0.6, "l2": 40.0, "iou": 0.7} | given
    found = {f"{id}/{name}": values[name] for id in ids for name in SIGNS[id]}
    losses = {f"{id}/loss": 0.25 for id in ids}
    return {**found, **losses, "loss": 0.25 * len(ids)}


def make_run(
    folder: Path,
    *,
    ids: Sequence[str] = ("seg", "bbox"),
    test: Mapping[str, float | None] | None = None,
    val: Sequence[Mapping[str, float | None]] | None = None,
    finished: bool = True,
    pictures: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
    tables: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """A run of two steps per epoch; every other option goes into its configuration."""
    folder.mkdir(parents=True)
    val = [scores(ids, miou=0.3), scores(ids)] if val is None else val
    config = {
        "tasks": {id: TASKS[id] for id in ids},
        "backbone": {"name": "segnet", "width": 8},
        "balancer": {"name": "equal"},
        "data": {"name": "shapes", "size": 64},
        "seed": 0, "batch_size": 16, "accumulate": 1, "image_size": None, "monitor": None,
        "output": str(folder), "overfit": 0, **options,
    }  # fmt: skip
    described = {
        "tasks": {id: {"metrics": SIGNS[id], "primary": PRIMARY[id],
                       "default_head": TASKS[id]["head"]["name"]} for id in ids},  # type: ignore[index]
        "samples": {"train": 64, "val": 60, "test": 70}, "problems": [], "image_size": [64, 64],
        "parameters": {"shared": 1000, "own": dict.fromkeys(ids, 10)}, "steps": 2 * len(val),
        **(about or {}),
    }  # fmt: skip
    lines = []
    for epoch, values in enumerate(val):
        step = 2 * epoch + 2
        train = {f"{id}/loss": 1 / step for id in ids} | {f"{id}/weight": 1.0 for id in ids}
        lines += [
            {"step": step, "epoch": epoch, "split": "train", **train, "images_per_second": 32.0},
            {"step": step, "epoch": epoch, "split": "val", **values},
        ]
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    environment = {"device": "cpu", "processes": 1, "versions": {"torch": "2"}}
    write(folder / "env.json", environment)
    write(folder / "about.json", described)
    if tables is not None:
        (folder / "tables").mkdir()
        write(folder / "tables" / "test.json", tables)
    if pictures:
        _gallery(folder / "gallery", ids, pictures)
    if finished:
        best = max(val, key=lambda x: x[f"{ids[0]}/{PRIMARY[ids[0]]}"] or 0)
        write(folder / "results.json", {
            "test": scores(ids) if test is None else test, "val": best,
            "best_step": 2 * list(val).index(best) + 2, "seconds": 12.0, "status": "ok",
        })  # fmt: skip
    return folder


def _gallery(folder: Path, ids: Sequence[str], samples: Sequence[str]) -> None:
    (folder / "samples").mkdir(parents=True)
    titles = [["input"], *([id, what] for id in ids for what in ("truth", "predicted"))]
    columns = []
    for number, title in enumerate(titles):
        files = [f"samples/sample.{row}.{number}.webp" for row in range(len(samples))]
        for file in files:
            Image.new("RGB", (8, 8), "red").save(folder / file)
        columns.append({"title": title, "files": files})
    write(folder / "samples.json", {"ids": list(samples), "columns": columns, "attention": {}})


def write(file: Path, tree: Any) -> None:
    file.write_text(json.dumps(tree))
