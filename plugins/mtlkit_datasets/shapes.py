"""Generated pictures with exact labels: no file, no network."""

import colorsys
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from mtlkit import Dataset, DatasetSpec, Sample, TargetSpec

from ._boxes import mask_extent
from ._partial import Absent, absent, what_is_left, without
from ._samples import as_box, as_image

Floats = NDArray[np.float32]

OUTLINES: dict[str, tuple[int, float] | None] = {
    "circle": None,
    "square": (4, math.cos(math.pi / 4)),
    "triangle": (3, math.cos(math.pi / 3)),
    "star": (5, 0.48),
}
"""Number of tips, and radius of the inner corners as a share of the tips' radius."""
KINDS = tuple(OUTLINES)
HUES = {"circle": 0.03, "square": 0.56, "triangle": 0.3, "star": 0.8}
HUE_SPREAD = 0.06
"""Usual hue of a kind, a share of the circle, and its standard deviation: neighbours overlap."""
STREAMS = {"train": 0, "val": 1, "test": 2}
SMALLEST = 32
LARGE = (0.28, 0.42)
SMALL = (0.12, 0.17)
"""Square root of a shape's area as a share of the picture's side."""


class Shapes(Dataset):
    """Generated pictures: a large coloured shape, up to two small ones, a textured background.

    ``seg`` marks every shape's pixels with its kind, ``cls`` is the kind of the large shape and
    ``bbox`` the box of its pixels. All labels are exact. A kind has a usual colour, but only its
    outline is sure. A sample depends on seed, split and index alone.

    Args:
        size: side of the pictures, in pixels, at least 32.
        train: number of training samples.
        val: number of validation samples.
        test: number of test samples.
        seed: of the pictures; it is apart from the run's own seed.
        keep_labels: share of the training samples that keep a label, such as ``seg=0.1,cls=0.5``;
            labels not named stay whole.

    Raises:
        ValueError: a number is out of range.
    """

    image_size = 64

    def __init__(
        self,
        *,
        size: int = 64,
        train: int = 416,
        val: int = 100,
        test: int = 200,
        seed: int = 0,
        keep_labels: Mapping[str, float] | None = None,
    ) -> None:
        if size < SMALLEST:
            raise ValueError(f"size is at least {SMALLEST} pixels, got {size}")
        if seed < 0:
            raise ValueError(f"seed is at least 0, got {seed}")
        sizes = {"train": train, "val": val, "test": test}
        for name, number in sizes.items():
            if number < 1:
                raise ValueError(f"{name} is a number of samples, at least 1, got {number}")
        self.image_size = size
        self.seed = seed
        spec = DatasetSpec(
            targets={
                "seg": TargetSpec("mask", classes=("background", *KINDS), labelled=sizes),
                "cls": TargetSpec("class", classes=KINDS, labelled=sizes),
                "bbox": TargetSpec("box", labelled=sizes),
            },
            sizes=sizes,
        )
        ids = [_id("train", index) for index in range(train)]
        self._absent = absent(keep_labels or {}, ids, spec.targets)
        self.spec = what_is_left(spec, self._absent, dict.fromkeys(spec.targets, ids))

    def split(self, name: Literal["train", "val", "test"], /) -> "ShapesSamples":
        """The samples of one split."""
        lost = self._absent if name == "train" else {}
        return ShapesSamples(name, self.spec.sizes[name], self.image_size, self.seed, lost)


@dataclass(frozen=True)
class ShapesSamples:
    """One split of :class:`Shapes`."""

    name: str
    number: int
    size: int
    seed: int
    absent: Absent = field(default_factory=dict)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < self.number:
            raise IndexError(f"sample {index} of {self.number}")
        rng = np.random.default_rng([self.seed, STREAMS[self.name], index])
        shapes = place(rng, self.size)
        distances = [shape.distance(self.size) for shape in shapes]
        mask = np.zeros((self.size, self.size), dtype=np.uint8)
        for shape, distance in zip(shapes, distances, strict=True):
            mask[distance < 0] = shape.kind + 1
        box = mask_extent(distances[0] < 0)
        assert box is not None
        sample: Sample = {
            "image": as_image(paint(rng, shapes, distances)),
            "id": _id(self.name, index),
            "seg": tv_tensors.Mask(torch.from_numpy(mask)),
            "cls": torch.tensor(shapes[0].kind),
            "bbox": as_box(box, mask.shape),
        }
        return without(sample, self.absent)


def _id(split: str, index: int) -> str:
    return f"{split}-{index:06d}"


@dataclass(frozen=True)
class Shape:
    """One shape: index of its kind, centre, angle, and square root of its area, in pixels."""

    kind: int
    centre: tuple[float, float]
    angle: float
    extent: float

    @property
    def outline(self) -> tuple[int, float] | None:
        """Tips and inner corners; None for the circle."""
        return OUTLINES[KINDS[self.kind]]

    @property
    def radius(self) -> float:
        """Of the circle around it."""
        if self.outline is None:
            return self.extent / math.sqrt(math.pi)
        tips, inner = self.outline
        return self.extent / math.sqrt(tips * inner * math.sin(math.pi / tips))

    def distance(self, size: int) -> Floats:
        """Signed distance of every pixel's centre to the outline, negative inside, [S, S]."""
        steps = np.arange(size, dtype=np.float32) + np.float32(0.5)
        x = steps[None, :] - np.float32(self.centre[0])
        y = steps[:, None] - np.float32(self.centre[1])
        rho = np.hypot(x, y)
        if self.outline is None:
            return rho - np.float32(self.radius)  # type: ignore[no-any-return]
        tips, inner = self.outline
        half = math.pi / tips
        # All sides are alike: turn and mirror each pixel to the side between the tip at angle 0
        # and the inner corner at angle `half`, then measure to that side's line.
        turned = np.arctan2(y, x) + np.float32(half - self.angle)
        angle = np.abs(turned % np.float32(2 * half) - np.float32(half))
        normal = np.array([inner * math.sin(half), 1 - inner * math.cos(half)], dtype=np.float32)
        normal /= np.hypot(*normal)
        along = rho * (np.cos(angle) * normal[0] + np.sin(angle) * normal[1])
        to_side = along - np.float32(self.radius) * normal[0]
        distance: Floats = np.maximum(to_side, rho - np.float32(self.radius))
        return distance


def place(rng: np.random.Generator, size: int) -> list[Shape]:
    """The large shape first, then none to two small ones, none overlapping or cut off."""
    shapes = [random_shape(rng, size, LARGE)]
    for _ in range(rng.integers(3)):
        for _ in range(20):
            small = random_shape(rng, size, SMALL)
            if all(math.dist(small.centre, s.centre) > small.radius + s.radius for s in shapes):
                shapes.append(small)
                break
    return shapes


def random_shape(rng: np.random.Generator, size: int, share: tuple[float, float]) -> Shape:
    """A shape of any kind, wholly inside the picture."""
    kind = int(rng.integers(len(KINDS)))
    extent, angle = size * rng.uniform(*share), rng.uniform(0, 2 * math.pi)
    margin = Shape(kind, (0, 0), angle, extent).radius + 1
    x, y = rng.uniform(margin, size - margin, 2)
    return Shape(kind, (float(x), float(y)), float(angle), float(extent))


def paint(
    rng: np.random.Generator, shapes: list[Shape], distances: list[Floats]
) -> NDArray[np.uint8]:
    """The picture, [S, S, 3]: smooth edges, a soft shadow, light from one side."""
    size = len(distances[0])
    canvas = background(rng, size)
    light = rng.uniform(-0.25, 0.25, 2).astype(np.float32)
    for shape, distance in zip(shapes, distances, strict=True):
        shadow = 0.45 * np.exp(-np.maximum(distance, 0) * np.float32(20 / size))
        canvas *= (1 - shadow)[..., None]
        slope = ramp(size) - np.array(shape.centre, dtype=np.float32) / size
        colour = 1 + (slope @ light)[..., None] * size / shape.radius
        hue = rng.normal(HUES[KINDS[shape.kind]], HUE_SPREAD)
        fill = colour * random_colour(rng, hue, saturation=(0.55, 0.95), value=(0.8, 1.0))
        inside = np.clip(0.5 - distance, 0, 1)[..., None]
        canvas += inside * (fill - canvas)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(0.02)
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def background(rng: np.random.Generator, size: int) -> Floats:
    """Two muted colours mixed by smooth noise of three scales, [S, S, 3]."""
    noise = np.zeros((size, size), dtype=np.float32)
    for cells, strength in ((3, 0.4), (7, 0.35), (16, 0.25)):
        grid = rng.random((cells, cells), dtype=np.float32)
        spread = stretch(cells, size)
        noise += np.float32(strength) * (spread @ grid @ spread.T)
    first, second = (
        random_colour(rng, hue, saturation=(0.1, 0.45), value=(0.25, 0.8)) for hue in rng.random(2)
    )
    contrast = 0.5 + 1.4 * (noise - 0.5)
    return first + contrast[..., None] * (second - first)


def random_colour(
    rng: np.random.Generator,
    hue: float,
    *,
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> Floats:
    """Red, green and blue in [0, 1]."""
    rgb = colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, dtype=np.float32)


@lru_cache
def stretch(cells: int, size: int) -> Floats:
    """Matrix that interpolates ``cells`` values smoothly to ``size`` pixels, [S, cells]."""
    at = np.linspace(0, cells - 1, size)
    near = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells)))
    smooth: Floats = (near**2 * (3 - 2 * near)).astype(np.float32)
    return smooth


@lru_cache
def ramp(size: int) -> Floats:
    """Position of every pixel, x and y in [0, 1), [S, S, 2]."""
    steps = np.arange(size, dtype=np.float32) / size
    return np.stack(np.meshgrid(steps, steps), axis=-1)
