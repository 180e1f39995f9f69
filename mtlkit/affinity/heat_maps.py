"""Heat maps: which tasks help and hurt each other, as a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

CELL = 1.05
"""Inches of one cell."""
DPI = 130
COLOURS = matplotlib.colormaps["RdBu"]
"""Red for hurt and conflict, blue for help and agreement; told apart by all kinds of eyes."""
OWN = "0.93"
"""Grey of a task's effect on itself, which has no part in the scale."""


def heat_maps(
    file: Path,
    ids: Sequence[str],
    *,
    effect: Tensor,
    effect_text: Callable[[int, int], str],
    cosine: Tensor,
    cosine_text: Callable[[int, int], str],
) -> None:
    """Draw the effects of steps beside the cosines of gradients.

    Args:
        file: PNG to write.
        ids: of the T tasks.
        effect: ``[T, T]`` in percent, rows step; 0 is white.
        effect_text: of a cell.
        cosine: ``[T, T]``.
        cosine_text: of a cell.
    """
    side = CELL * len(ids)
    figure = Figure(figsize=(2 * side + 3.8, side + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set_title("effect of a step on a task\non the tasks' losses, in %", fontsize=10)
    left.set(xlabel="whose loss (blue: it falls)", ylabel="a step on")
    apart = effect.masked_fill(torch.eye(len(ids), dtype=torch.bool), 0).nan_to_num()
    end = float(apart.abs().max()) or 1.0
    _map(left, ids, effect, end, effect_text)
    right.set_title("cosine of the tasks' gradients\nat the shared parameters", fontsize=10)
    right.set(xlabel="blue: they agree, red: they conflict")
    _map(right, ids, cosine, 1.0, cosine_text)
    figure.savefig(file, dpi=DPI)


def _map(
    ax: Axes, ids: Sequence[str], values: Tensor, end: float, text: Callable[[int, int], str]
) -> None:
    ax.set_facecolor(OWN)
    shown = values.clone().fill_diagonal_(torch.nan)
    image = ax.imshow(shown.numpy(), cmap=COLOURS, vmin=-end, vmax=end)
    assert ax.figure is not None
    ax.figure.colorbar(image, ax=ax, shrink=0.85)
    for i in range(len(ids)):
        for j in range(len(ids)):
            dark = i != j and abs(float(values[i, j])) > 0.6 * end
            ax.text(j, i, text(i, j), ha="center", va="center", fontsize=8,
                    color="white" if dark else "black")  # fmt: skip
    ax.set_xticks(range(len(ids)), ids)
    ax.set_yticks(range(len(ids)), ids)
    edges = [n + 0.5 for n in range(len(ids) - 1)]
    ax.vlines(edges, -0.5, len(ids) - 0.5, colors="white", linewidths=2)
    ax.hlines(edges, -0.5, len(ids) - 0.5, colors="white", linewidths=2)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
