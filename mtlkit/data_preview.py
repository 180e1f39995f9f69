"""A picture of a dataset's first samples: ``mtlkit data check --preview``."""

import warnings
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from mtlkit.data import SPLITS, DatasetSpec, Sample, TargetSpec, one_line
from mtlkit.data_check import Found
from mtlkit.errors import ConfigError

WIDTH = 2.6
"""Inches of a picture."""
ABOVE, ABOVE_MAPS = 0.5, 0.25
"""Inches for what is said above it, on the average of a figure's rows."""


def preview(found: Found, file: Path) -> None:
    """Draw the first samples of each split with masks, boxes and classes, and their maps below.

    Raises:
        ConfigError: the file cannot be written.
    """
    assert found.spec is not None
    maps = [name for name, target in found.spec.targets.items() if target.kind == "map"]
    shown = [split for split in SPLITS if found.shown.get(split)]
    rows = [(split, name) for split in shown for name in (None, *maps)]
    columns = max((len(found.shown[split]) for split in shown), default=1)
    number, height = max(len(rows), 1), _height(found) + (ABOVE_MAPS if maps else ABOVE)
    figure = Figure(figsize=(WIDTH * columns, height * number), layout="constrained")
    axes = figure.subplots(number, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for row, (split, name) in zip(axes, rows, strict=False):
        for ax, sample in zip(row, found.shown[split], strict=False):
            if name is None:
                _draw(ax, split, sample, found.spec)
            elif name in sample:
                _draw_map(ax, name, sample[name].as_subclass(Tensor), found.spec.targets[name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names in letters that no font here has
            figure.savefig(file, format="png", dpi=110)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror or error}") from error


def _height(found: Found) -> float:
    """Inches for the picture that is highest for its width, within reason."""
    sizes = [sample["image"].shape[-2:] for samples in found.shown.values() for sample in samples]
    return WIDTH * min(max((height / width for height, width in sizes), default=1.0), 2.0)


def _draw(ax: Axes, split: str, sample: Sample, spec: DatasetSpec) -> None:
    """The picture with what lies on it."""
    ax.imshow(sample["image"].permute(1, 2, 0).numpy())
    lines = [f"{split}: {sample['id'][-24:]}"]
    for name in sorted(sample.keys() & spec.targets.keys()):
        target, value = spec.targets[name], sample[name].as_subclass(Tensor)
        if target.kind == "class":
            lines.append(f"{name}: {target.classes[int(value)][:20]}")
        elif target.kind == "mask":
            colours = matplotlib.colormaps["tab20"](value.numpy() % 20)
            colours[..., 3] = np.where(value.numpy() == target.ignore_index, 0, 0.45)
            ax.imshow(colours)
        elif target.kind == "box":
            left, top, right, bottom = value.flatten().tolist()
            # pixel i reaches from i - 0.5 to i + 0.5 in a figure
            corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
            ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor="red", linewidth=1.5))
    ax.set_title("\n".join(map(one_line, lines)), fontsize=7, parse_math=False)


def _draw_map(ax: Axes, name: str, values: Tensor, target: TargetSpec) -> None:
    """Numbers as colours, from the least to the largest; hatched where nothing was measured."""
    height, width = values.shape[-2:]
    ax.add_patch(Rectangle((-0.5, -0.5), width, height, fc="white", ec="silver", hatch="////",
                           zorder=-1))  # fmt: skip
    measured = np.ones((height, width), dtype=bool)
    if target.quantity != "plain":
        measured = (values != 0).any(0).numpy()
    if target.quantity == "direction":
        rgb = (values.permute(1, 2, 0).numpy() + 1) / 2
        ax.imshow(np.dstack([rgb.clip(0, 1), measured]))
        title = name
    else:
        shown = np.ma.masked_array(values[0].numpy(), ~measured)
        ax.imshow(shown, cmap="viridis")
        title = f"{name}: {shown.min():.3g} to {shown.max():.3g}" if measured.any() else name
    ax.set_title(one_line(title), fontsize=7, parse_math=False)
