"""Attention: where the tasks' masks let features through, in numbers and as a picture.

A mask multiplies features, and convolutions follow: attention says what a task lets through, not
what its answer depends on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, zip_longest
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from mtlkit.affinity.interval import Estimate, estimate
from mtlkit.data import TargetSpec
from mtlkit.errors import ConfigError
from mtlkit.loader import Batch
from mtlkit.model import Model, as_floats

KINDS = ("mask", "box")
"""Kinds of labels that say where in a picture something is."""
CELL = 1.35
"""Inches of one picture."""
DPI = 110
UNIT = (0, 1, 1, 0)
"""Edges of every picture: left, right, bottom, top."""

Masks = dict[str, list[Tensor]]
"""By task, ``[B, C, h, w]`` in [0, 1] in the order they are applied."""


@dataclass
class Block:
    """What is known of the masks with one number, over images.

    Args:
        size: height and width of the masks.
        tasks: by task and quantity. ``level`` is the mean of a mask, ``spread`` its standard
            deviation over positions and channels, ``spread over positions`` that of a channel over
            positions; ``in LABEL`` is the mean inside of what is labelled less that outside.
        similarity: by pair of tasks, the correlation of their masks over positions and channels.
    """

    size: tuple[int, int] = (0, 0)
    tasks: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    similarity: dict[str, Estimate] = field(default_factory=dict)


def inside_of(label: str) -> str:
    """The quantity that tells how much more attention a label gets than what is around it."""
    return f"in {label}"


def check(model: Model, name: str) -> None:
    """Refuse a backbone without attention.

    Raises:
        ConfigError: it has none.
    """
    height, width = model.image_size
    grey = torch.full((1, 3, height, width), 0.5, device=model.device)
    if not any(masks_of(model, model.inputs(grey)).values()):
        raise ConfigError(
            f"backbone '{name}' has no attention; leave out --attention, or name a --backbone "
            "whose tasks have masks"
        )


@torch.inference_mode()
def masks_of(model: Model, inputs: Sequence[Tensor]) -> Masks:
    """Each task's masks for what :meth:`mtlkit.Model.inputs` made of images."""
    was_training = model.training
    model.eval()
    masks: Masks = {}
    for images, tasks in zip(inputs, model.passes, strict=True):
        seen = model.backbone.attention((images - model.mean) / model.std)
        masks |= {
            task: [mask.float().cpu() for mask in seen[task]] for task in tasks if task in seen
        }
    model.train(was_training)
    return masks


def measure(
    model: Model, batches: Iterable[Batch], labels: Mapping[str, TargetSpec]
) -> list[Block]:
    """What the masks are like on these batches, block by block.

    Args:
        model: whose backbone has attention.
        batches: as the loader makes them, with these labels.
        labels: of the kinds in ``KINDS``, by name; others are left out.
    """
    found: dict[tuple[int, str, str], list[Tensor]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for batch in batches:
        masks = masks_of(model, _inputs(model, batch))
        for task, number, mask in _each(masks):
            sizes[number] = (mask.shape[-2], mask.shape[-1])
            values = {**_shape(mask), **_where(mask, batch, labels)}
            for quantity, per_image in values.items():
                found.setdefault((number, task, quantity), []).append(per_image)
        for (a, number, mine), (b, other, theirs) in combinations(_each(masks), 2):
            if number == other and mine.shape == theirs.shape:
                alike = _correlation(mine.flatten(1), theirs.flatten(1))
                found.setdefault((number, f"{a}+{b}", ""), []).append(alike)
    blocks = [Block(sizes[number]) for number in sorted(sizes)]
    for (number, who, quantity), images in found.items():
        value = estimate(torch.cat(images))
        if quantity:
            blocks[number].tasks.setdefault(who, {})[quantity] = value
        else:
            blocks[number].similarity[who] = value
    return blocks


def _inputs(model: Model, batch: Batch) -> list[Tensor]:
    return model.inputs(as_floats(batch["image"].to(model.device)), batch["seeds"])


def _each(masks: Masks) -> list[tuple[str, int, Tensor]]:
    return [(task, number, mask) for task, all in masks.items() for number, mask in enumerate(all)]


def _shape(mask: Tensor) -> dict[str, Tensor]:
    """``[B]`` each."""
    return {
        "level": mask.mean((1, 2, 3)),
        "spread": mask.flatten(1).std(1, correction=0),
        "spread over positions": mask.flatten(2).std(2, correction=0).mean(1),
    }


def _where(mask: Tensor, batch: Batch, labels: Mapping[str, TargetSpec]) -> dict[str, Tensor]:
    """``[B]`` for each label: mean attention inside less outside; NaN where there is no label."""
    heat = mask.mean(1)  # [B, h, w]
    out = {}
    for name, spec in labels.items():
        if spec.kind in KINDS:
            inside, outside = shares(batch["targets"][name], spec, (heat.shape[-2], heat.shape[-1]))
            contrast = _mean(heat, inside) - _mean(heat, outside)
            out[inside_of(name)] = torch.where(batch["present"][name], contrast, torch.nan)
    return out


def _mean(heat: Tensor, weight: Tensor) -> Tensor:
    """``[B]``: NaN where nothing has weight, but for rounding."""
    total = weight.sum((1, 2))
    return torch.where(total > 1e-3, (heat * weight).sum((1, 2)) / total, torch.nan)


def shares(target: Tensor, spec: TargetSpec, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What share of each cell of a grid lies inside and outside of what is labelled.

    Of a mask every class but the first is inside, and pixels that are not labelled are neither.

    Args:
        target: ``[B, H, W]`` classes, or ``[B, 4]`` boxes in [0, 1].
        spec: of the label, of one of ``KINDS``.
        size: height and width of the grid.

    Returns:
        Two ``[B, h, w]`` in [0, 1].
    """
    if spec.kind == "box":
        across = _overlap(target[:, 0], target[:, 2], size[1])
        down = _overlap(target[:, 1], target[:, 3], size[0])
        inside = down[:, :, None] * across[:, None]
        return inside, 1 - inside
    known = target != spec.ignore_index
    inside, outside = (known & (target != 0)), (known & (target == 0))
    return _reduced(inside, size), _reduced(outside, size)


def _overlap(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """``[B, cells]``: the share of each cell of a side that lies between two edges."""
    low, high = ((edge[:, None] * cells - torch.arange(cells)).clamp(0, 1) for edge in (low, high))
    return high - low


def _reduced(region: Tensor, size: tuple[int, int]) -> Tensor:
    share: Tensor = F.adaptive_avg_pool2d(region.float()[:, None], size)[:, 0]
    return share


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """``[B]``: Pearson's, NaN where one does not vary."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return torch.cosine_similarity(a, b, dim=1, eps=0)


def picture(file: Path, model: Model, batch: Batch, labels: Mapping[str, TargetSpec]) -> None:
    """Draw for each sample and task where each mask is above and below its own mean level.

    Masks are averaged over channels. All tasks' masks of a block have one scale of colours.

    Args:
        file: PNG to write.
        model: whose backbone has attention.
        batch: fixed samples.
        labels: those of the kinds in ``KINDS`` are outlined, by name.
    """
    heats = {
        task: [_centred(mask) for mask in masks]
        for task, masks in masks_of(model, _inputs(model, batch)).items()
    }
    ends = _ends(heats.values())
    rows = [(sample, task) for sample in range(len(batch["id"])) for task in heats]
    size = (CELL * (len(ends) + 1) + 0.4, CELL * len(rows) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(
        "orange: more attention than this mask's mean, purple: less; outlined: the labels",
        fontsize=9,
    )
    axes = figure.subplots(len(rows), len(ends) + 1, squeeze=False)
    for line, (sample, task) in zip(axes, rows, strict=True):
        line[0].imshow(batch["image"][sample].permute(1, 2, 0).numpy(), extent=UNIT)
        line[0].set_ylabel(task, fontsize=9)
        for ax, heat, end in zip(line[1:], heats[task], ends, strict=False):
            ax.imshow(heat[sample].numpy(), cmap="PuOr_r", vmin=-end, vmax=end, extent=UNIT)
            _outline(ax, batch, sample, labels)
        for ax in line:
            ax.set(xticks=[], yticks=[])
        for ax in line[1 + len(heats[task]) :]:
            ax.set_axis_off()
    for number, (ax, end) in enumerate(zip(axes[0][1:], ends, strict=True), start=1):
        ax.set_title(f"mask {number}\nup to \N{PLUS-MINUS SIGN}{end:.2g}", fontsize=8)
    figure.savefig(file, dpi=DPI)


def _centred(mask: Tensor) -> Tensor:
    """``[B, h, w]``: the mean over channels, less its own mean over positions."""
    heat = mask.mean(1)
    return heat - heat.mean((1, 2), keepdim=True)


def _ends(heats: Iterable[Sequence[Tensor]]) -> list[float]:
    """For each block the largest value of any task."""
    columns = zip_longest(*heats)
    return [max(float(h.abs().max()) for h in column if h is not None) for column in columns]


def _outline(ax: Axes, batch: Batch, sample: int, labels: Mapping[str, TargetSpec]) -> None:
    """Where the sample's labels are: masks by a line, boxes by a dashed one."""
    height, width = batch["image"].shape[-2:]
    across, down = ((torch.arange(n) + 0.5) / n for n in (width, height))
    for name, spec in labels.items():
        if spec.kind in KINDS and batch["present"][name][sample]:
            inside, _ = shares(batch["targets"][name][sample, None], spec, (height, width))
            if inside.min() < 0.5 < inside.max():
                style = "--" if spec.kind == "box" else "-"
                ax.contour(across, down, inside[0], [0.5], colors="black", linewidths=0.7,
                           linestyles=style)  # fmt: skip
