"""Geometry: what of a sample's image the network sees, for the image and all its labels alike.

It draws what ``RandomResizedCrop``, ``RandomHorizontalFlip`` and ``ColorJitter`` of torchvision's
v2 draw, and calls the same kernels, without what finding them costs for each sample.
"""

import math
from typing import Literal, NamedTuple, cast

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize
from torchvision.transforms.v2 import functional as F

from mtlkit.data import Quantity

Augment = Literal["none", "light", "strong"]
Size = tuple[int, int]
"""Height and width, in pixels."""
RATIOS = (0.8, 1.25)
"""Width by height of a crop."""
LEAST_SHARE = {"light": 0.6, "strong": 0.3}
"""Of the image's area in a crop."""
COLOURS = (
    (F.adjust_brightness_image, 0.7, 1.3),
    (F.adjust_contrast_image, 0.7, 1.3),
    (F.adjust_saturation_image, 0.7, 1.3),
    (F.adjust_hue_image, -0.05, 0.05),
)
"""What a strong augmentation does to colours, each with its range."""


class View(NamedTuple):
    """A part of an image, in its pixels, that fills what the network sees.

    Args:
        top: row at which it begins.
        left: column at which it begins.
        height: of the part.
        width: of the part.
        mirrored: whether left and right change places.
        colours: changes by their place in ``COLOURS``, in their order, and how strong each is.
    """

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False
    colours: tuple[tuple[int, float], ...] = ()

    def image(self, image: Tensor, size: Size) -> Tensor:
        """``[3, H, W]`` uint8 at that size, smoothed where it becomes smaller."""
        out: Tensor = F.resized_crop_image(image.as_subclass(Tensor), *self[:4], list(size))
        out = out.flip(-1) if self.mirrored else out
        for which, strength in self.colours:
            out = COLOURS[which][0](out, strength)
        return out

    def mask(self, mask: Tensor, size: Size) -> Tensor:
        """``[..., H, W]`` at that size; every pixel is the nearest one of the mask."""
        out: Tensor = F.resized_crop_mask(mask.as_subclass(Tensor), *self[:4], list(size))
        return out.flip(-1) if self.mirrored else out

    def map(self, values: Tensor, size: Size, quantity: Quantity) -> Tensor:
        """``[C, H, W]`` at that size: the nearest values, of the scene that the view shows.

        A part of the picture that fills it looks as if the camera had come nearer, so distances
        are divided by the zoom. A part of another shape is stretched besides, and a mirrored one
        turned round: both turn directions. What was not measured stays 0, and the whole image as
        it is.

        Args:
            values: of the whole image.
            size: height and width.
            quantity: what they measure.
        """
        shown = self.mask(values, size)
        down, across = values.shape[-2] / self.height, values.shape[-1] / self.width
        zoom, stretch = math.sqrt(down * across), math.sqrt(across / down)
        if quantity == "distance":
            return shown / zoom
        if quantity == "inverse-distance":
            return shown * zoom
        if quantity == "direction" and (self.mirrored or stretch != 1):
            # of a scene that is wider and less high: times the inverse of the stretch
            turn = ((-1 if self.mirrored else 1) / stretch, stretch, 1)
            return normalize(shown * shown.new_tensor(turn)[:, None, None], dim=0)
        return shown

    def box(self, box: Tensor) -> list[float]:
        """Left, top, right, bottom of ``[1, 4]``, cut to the part, as shares of its sides."""
        places = ((self.left, self.width), (self.top, self.height)) * 2
        left, top, right, bottom = (
            min(max((edge - start) / side, 0.0), 1.0)
            for edge, (start, side) in zip(box.flatten().tolist(), places, strict=True)
        )
        return [1 - right, top, 1 - left, bottom] if self.mirrored else [left, top, right, bottom]


def draw(augment: Augment, size: Size, generator: Generator) -> View:
    """What is shown of an image of that size."""
    if augment == "none":
        return View(0, 0, *size)
    part = _draw_part(size, LEAST_SHARE[augment], generator)
    mirrored = torch.rand(1, generator=generator).item() < 0.5
    colours: tuple[tuple[int, float], ...] = ()
    if augment == "strong":
        order = torch.randperm(len(COLOURS), generator=generator).tolist()
        strengths = [_uniform(low, high, generator) for _, low, high in COLOURS]
        colours = tuple((which, strengths[which]) for which in order)
    return View(*part, mirrored, colours)


def _draw_part(size: Size, share: float, generator: Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop, or of the largest in the middle if none fits."""
    height, width = size
    for _ in range(10):
        area = height * width * _uniform(share, 1.0, generator)
        log_ratio = torch.empty(1).uniform_(*_LOG_RATIOS, generator=generator)
        ratio = log_ratio.exp().item()
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = torch.randint(0, height - h + 1, (1,), generator=generator).item()
            left = torch.randint(0, width - w + 1, (1,), generator=generator).item()
            return int(top), int(left), h, w
    w = min(width, round(height * RATIOS[1]))
    h = min(height, round(width / RATIOS[0]))
    return (height - h) // 2, (width - w) // 2, h, w


_LOG_RATIOS = cast(tuple[float, float], tuple(torch.tensor(RATIOS).log().tolist()))


def _uniform(low: float, high: float, generator: Generator) -> float:
    return torch.empty(1).uniform_(low, high, generator=generator).item()


def smallest_image(augment: Augment, size: Size) -> Size:
    """The smallest image of which every part that may be drawn has at least ``size`` pixels.

    A crop of a share s of the area of H x W pixels has sides of sqrt(s H W r) and sqrt(s H W / r),
    or one side is the image's own: none is below sqrt(0.8 s) times the image's shorter side.
    """
    if augment == "none":
        return size
    side = math.ceil(max(size) / math.sqrt(RATIOS[0] * LEAST_SHARE[augment]))
    return side, side
