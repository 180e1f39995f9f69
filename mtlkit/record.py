"""Record: what a run notes about itself for its report, which is made from files alone."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mtlkit.evaluate import Scores
from mtlkit.files import replace_text
from mtlkit.session import Run
from mtlkit.task import Table


def write_about(run: Run) -> None:
    """Write ``about.json``: what is trained on what."""
    sharing, spec = run.engine.sharing, run.dataset.spec
    _write(run.folder.path / "about.json", {
        "tasks": {
            task.id: {
                "metrics": {name: task.better(name) for name in task.metric_names},
                "primary": task.primary,
                "default_head": task.default_head,
            }
            for task in run.model.tasks.values()
        },
        "samples": dict(spec.sizes),
        "labelled": {name: dict(target.labelled) for name, target in spec.targets.items()},
        "problems": [problem.text for problem in run.dataset.problems],
        "image_size": list(run.model.image_size),
        "parameters": {
            "shared": sum(p.numel() for p in sharing.shared),
            "own": {id: sum(p.numel() for p in own) for id, own in sharing.own.items()},
        },
        "steps": run.steps,
    })  # fmt: skip


def write_tables(folder: Path, split: str, scores: Scores) -> None:
    """Write ``tables/<split>.json``: what tasks counted in an evaluation; null for no number."""
    (folder / "tables").mkdir(exist_ok=True)
    tables = {title: _plain(table) for title, table in scores.tables.items()}
    _write(folder / "tables" / f"{split}.json", tables)


def _plain(table: Table) -> dict[str, Any]:
    values = [[v if math.isfinite(v) else None for v in row] for row in table.values]
    return {"rows": table.rows, "columns": table.columns, "values": values}


def _write(file: Path, tree: Mapping[str, Any]) -> None:
    replace_text(file, json.dumps(tree, indent=1) + "\n")


def peak_bytes(device: torch.device) -> int:
    """The most memory that was taken: on the device, or of the process where that is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
