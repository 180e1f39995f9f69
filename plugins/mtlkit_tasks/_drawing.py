"""Drawing on pictures, readable at 64 pixels and at 2000."""

import colorsys

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as transform


def colour(index: int) -> tuple[int, int, int]:
    """A colour for a class; neighbours differ clearly."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * 0.381966) % 1, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def tint(image: Tensor, mask: Tensor, classes: list[int], strength: float = 0.55) -> Tensor:
    """``image`` uint8 [3, H, W] with each of ``classes`` of ``mask`` [H, W] in its colour."""
    out = image.float()
    for index in classes:
        paint = torch.tensor(colour(index)).reshape(3, 1, 1)
        out = torch.where(mask == index, out * (1 - strength) + paint * strength, out)
    return out.round().byte()


def label(image: Tensor, text: str, index: int) -> Tensor:
    """``image`` with ``text`` on a plate in the colour of a class, in the upper left corner."""
    picture = transform.to_pil_image(image)
    font = ImageFont.load_default(max(9, min(picture.size) // 12))
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = max(1, (bottom - top) // 4)
    plate = (0, 0, right - left + 2 * margin, bottom - top + 2 * margin)
    draw.rectangle(plate, fill=(0, 0, 0), outline=colour(index))
    draw.text((margin - left, margin - top), text, font=font, fill=(255, 255, 255))
    return as_tensor(picture)


def rectangle(image: Tensor, box: list[float]) -> Tensor:
    """``image`` with the outline of ``box`` (XYXY, pixels), light inside dark to be seen on all."""
    picture = transform.to_pil_image(image)
    draw = ImageDraw.Draw(picture)
    width = max(1, round(min(picture.size) / 80))
    x1, y1, x2, y2 = box
    draw.rectangle([x1 - 1, y1 - 1, x2 + 1, y2 + 1], outline=(0, 0, 0), width=width + 2)
    draw.rectangle(box, outline=(255, 230, 0), width=width)
    return as_tensor(picture)


def as_tensor(picture: Image.Image) -> Tensor:
    """A PIL picture as uint8 [3, H, W]."""
    out: Tensor = transform.pil_to_tensor(picture)
    return out


def as_picture(values: Tensor, image: Tensor) -> Tensor:
    """Floats [C, h, w] in [0, 1] as uint8 [3, H, W] at the size of ``image``."""
    resized = transform.resize(values, list(image.shape[-2:]), antialias=True)
    out: Tensor = (resized.clamp(0, 1) * 255).round().byte().expand(3, -1, -1).contiguous()
    return out
