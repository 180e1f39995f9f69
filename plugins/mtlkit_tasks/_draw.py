"""Drawing on pictures, in sizes relative to them."""

import math
from collections.abc import Sequence

import matplotlib
import torch
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

RGB = tuple[int, int, int]

# Okabe and Ito's colours without black: apart for colour-blind readers too
PALETTE: tuple[RGB, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_DARK: RGB = (20, 20, 20)
_OPACITY = 0.45
_RANGE = 20  # between the numbers of the first and the last colour


def tint(image: Tensor, mask: Tensor, classes: Sequence[int]) -> Tensor:
    """Tint the pixels of ``classes``, each in its own colour, with a contour inside their border.

    Args:
        image: uint8 ``[3, H, W]``.
        mask: class of each pixel ``[H, W]``.
        classes: those to tint.
    """
    colours = torch.zeros(256, 3)
    opacity = torch.zeros(256)
    for i in classes:
        colours[i] = torch.tensor(_colour(i), dtype=torch.float)
        opacity[i] = _OPACITY
    index = mask.long()
    alpha = torch.where(_border(mask) & (opacity[index] > 0), 1.0, opacity[index])
    drawn = torch.lerp(image.float(), colours[index].movedim(-1, 0), alpha)
    return drawn.round().byte()


def _colour(i: int) -> RGB:
    """The palette's colours, then the same lighter, then darker, and then from the start."""
    again, place = divmod(i, len(PALETTE))
    paper = (None, 255, 0)[again % 3]
    red, green, blue = PALETTE[place]
    if paper is None:
        return red, green, blue
    return (red + paper) // 2, (green + paper) // 2, (blue + paper) // 2


def heat(values: Tensor, most: float) -> Tensor:
    """Numbers ``[H, W]`` up to ``most`` as colours, hatched where NaN.

    The colours are even in brightness, and equal steps of them are equal ratios, down to the 20th
    part of ``most``.
    """
    share = 1 + (values / most).nan_to_num(1).clamp(1 / _RANGE, 1).log() / math.log(_RANGE)
    colours = matplotlib.colormaps["viridis"](share.numpy(), bytes=True)[..., :3]
    return hatched(torch.from_numpy(colours).movedim(-1, 0), values.isnan())


def hatched(image: Tensor, missing: Tensor) -> Tensor:
    """The image uint8 ``[3, H, W]``, with stripes where nothing is known ``[H, W]``."""
    height, width = missing.shape
    stripe = max(2, round(min(height, width) / 40))
    diagonal = torch.arange(height)[:, None] + torch.arange(width)
    pattern = torch.where(diagonal // stripe % 2 == 0, 235, 190).byte()
    return torch.where(missing, pattern, image)


def rectangle(image: Tensor, box: Sequence[float], colour: RGB = PALETTE[3]) -> Tensor:
    """Outline ``box`` (x1, y1, x2, y2 in pixels), on a dark rim that shows on any background."""
    drawn = to_pil_image(image)
    width = _line(image)
    rim = max(1, width // 3)
    draw = ImageDraw.Draw(drawn)
    last = (image.shape[2] - 1, image.shape[1] - 1)
    corners = [min(round(value), last[i % 2]) for i, value in enumerate(box)]
    if width > 1:
        outer = [corners[0] - rim, corners[1] - rim, corners[2] + rim, corners[3] + rim]
        draw.rectangle(outer, outline=_DARK, width=width + 2 * rim)
    draw.rectangle(corners, outline=colour, width=width)
    result: Tensor = pil_to_tensor(drawn)
    return result


def label(image: Tensor, text: str, row: int = 0) -> Tensor:
    """Write ``text`` at the top left, ``row`` lines down, smaller or cut off where it must be."""
    drawn = to_pil_image(image)
    draw = ImageDraw.Draw(drawn, "RGBA")
    size = max(8, round(0.05 * min(drawn.size)))
    font, text = _fit(text, size, drawn.width - size // 2)
    pad = max(1, size // 5)
    top = row * (size + 2 * pad + 1)
    width = draw.textlength(text, font)
    draw.rectangle((0, top, width + 2 * pad, top + size + 2 * pad - 1), fill=(*_DARK, 200))
    middle = top + size / 2 + pad
    draw.text((pad, middle), text, fill="white", font=font, anchor="lm")
    result: Tensor = pil_to_tensor(drawn)
    return result


def _fit(text: str, size: int, width: float) -> tuple[ImageFont.FreeTypeFont, str]:
    """The font, at most ``size`` pixels high, and as much of the text as fits the width."""
    smallest = min(size, 7)
    for height in range(size, smallest - 1, -1):
        font = _font(height)
        if font.getlength(text) <= width:
            return font, text
    while len(text) > 1 and font.getlength(f"{text}\N{HORIZONTAL ELLIPSIS}") > width:
        text = text[:-1]
    return font, f"{text}\N{HORIZONTAL ELLIPSIS}"


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _line(image: Tensor) -> int:
    """Width of a line on this picture in pixels."""
    return max(1, round(min(image.shape[-2:]) / 120))


def _border(mask: Tensor) -> Tensor:
    """Pixels with another class within a line's width."""
    values = mask.float()[None]
    return _highest(values, _line(mask))[0] != -_highest(-values, _line(mask))[0]


def _highest(values: Tensor, reach: int) -> Tensor:
    """The highest of ``[1, H, W]`` within a square around each pixel: by columns, then by rows."""
    window = 2 * reach + 1
    columns = F.max_pool2d(values, (window, 1), 1, (reach, 0))
    return F.max_pool2d(columns, (1, window), 1, (0, reach))
