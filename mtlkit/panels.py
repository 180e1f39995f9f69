"""Panels: the lines of metrics.jsonl drawn into a figure's axes. Needs no torch."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.image import AxesImage

Line = Mapping[str, Any]
Points = Sequence[tuple[int, float]]
FEW = 30
"""Points up to which each gets a mark."""


def points(lines: Iterable[Line], split: str, key: str) -> list[tuple[int, float]]:
    """Step and value wherever ``key`` was logged for a split and is a number."""
    found = [(line["step"], line.get(key)) for line in lines if line["split"] == split]
    return [(step, value) for step, value in found if value is not None]


def looks(lines: Iterable[Line], ids: Sequence[str]) -> list[Line]:
    """The lines at which the tasks' gradients were looked at."""
    return [line for line in lines if any(f"{id}/gradient_norm" in line for id in ids)]


def pairs(ids: Sequence[str]) -> list[str]:
    """Each two tasks, as their cosine is called in the log."""
    return [f"{a}+{b}" for a, b in itertools.combinations(ids, 2)]


def draw_line(ax: Axes, series: Points, **style: Any) -> None:
    """One line; with few points each gets a mark."""
    ax.plot(*zip(*series, strict=True), marker="." if len(series) < FEW else "", **style)


def draw_cosines(ax: Axes, seen: Sequence[Line], ids: Sequence[str], cmap: Any) -> AxesImage:
    """A row per pair of tasks, a column per look at the gradients: from -1 conflict to 1.

    Args:
        ax: where to.
        seen: of :func:`looks`, at least one.
        ids: of the tasks, at least two.
        cmap: matplotlib's colours.
    """
    rows = pairs(ids)
    cosines = [[_number(line.get(f"{pair}/cosine")) for line in seen] for pair in rows]
    steps = [line["step"] for line in seen]
    half = (steps[-1] - steps[-2]) / 2 if len(steps) > 1 else 0.5
    ax.set_yticks(range(len(rows)), rows)
    return ax.imshow(
        cosines, cmap=cmap, vmin=-1, vmax=1, aspect="auto", interpolation="nearest",
        extent=(steps[0] - half, steps[-1] + half, len(rows) - 0.5, -0.5),
    )  # fmt: skip


def _number(value: float | None) -> float:
    return math.nan if value is None else value
