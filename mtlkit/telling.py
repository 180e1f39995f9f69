"""What a run shows while it trains: a bar, and a table for every evaluation."""

import math
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from mtlkit.session import Run


def bar(run: Run) -> Any:
    """A bar over the steps of the whole run, with the time that is left; on terminals alone."""
    return tqdm(
        total=run.steps,
        initial=run.progress.step,
        unit="step",
        leave=False,
        dynamic_ncols=True,
        disable=None if run.main else True,
    )


def evaluation(run: Run, values: Mapping[str, float], *, better: bool) -> list[str]:
    """A line on an evaluation on val, and one for each task with its loss and metrics."""
    progress, settings = run.progress, run.settings
    head = f"epoch {progress.epoch + 1:3d}/{settings.epochs}  step {progress.step:6d}"
    lines = [f"{head}  val loss {_number(values.get('loss'))}{'  best so far' * better}"]
    if not values:
        return [f"{head}  no val split: the last model is the best"]
    names = {id: ("loss", *task.metric_names) for id, task in run.model.tasks.items()}
    width = max(map(len, names))
    columns = max(len(of) for of in names.values())
    cells = {
        id: [f"{name} {_number(values.get(f'{id}/{name}'))}" for name in of]
        for id, of in names.items()
    }
    widths = [max(len(row[i]) for row in cells.values() if i < len(row)) for i in range(columns)]
    for id, row in cells.items():
        padded = "  ".join(cell.ljust(width_) for cell, width_ in zip(row, widths, strict=False))
        lines.append(f"  {id.ljust(width)}  {padded}".rstrip())
    return lines


def _number(value: float | None) -> str:
    """Four digits, so that columns stay narrow whatever the unit."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"
