"""Picture: from files and PIL to tensors and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What is decoded, whatever a file is called: Pillow hands some other formats to programs."""
LARGEST = 89_478_485
"""Pixels of a picture, Pillow's limit for one of 256 MiB: a file of some bytes may claim more."""


@contextmanager
def open_picture(file: Path) -> Iterator[Image.Image]:
    """A picture file, of which the header was read.

    Raises:
        ValueError: it is no regular file, or a picture of more than ``LARGEST`` pixels.
        OSError: it is absent, or no picture.
    """
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise ValueError("it is no regular file")
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > LARGEST:
            raise ValueError(f"it has {image.width}x{image.height} pixels; {LARGEST} are the most")
        yield image


def as_picture(image: Image.Image | Tensor) -> Tensor:
    """A PIL image of any mode as uint8 ``[3, H, W]``, turned upright by its EXIF entry."""
    if isinstance(image, Tensor):
        return image
    return cast(Tensor, transform.pil_to_tensor(to_rgb(ImageOps.exif_transpose(image))))


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture as the network is shown it, in training and in prediction alike.

    Transparency lies on white, 16 bits are scaled to 8.

    Raises:
        ValueError: its pixels are floating-point numbers, whose range nobody knows.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits per channel")
    if image.mode.startswith("I"):
        eight = np.rint(np.asarray(image) / 257).clip(0, 255).astype(np.uint8)
        return Image.fromarray(eight).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def save_image(file: Path, image: Tensor) -> None:
    """Write a uint8 ``[3, H, W]`` or ``[H, W]`` tensor as a PNG."""
    array = image.cpu().permute(1, 2, 0).numpy() if image.ndim == 3 else image.cpu().numpy()
    with replacing(file) as handle:
        # a third of the usual level's time, a seventh more bytes
        Image.fromarray(array).save(handle, "PNG", compress_level=1)


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of what has its name: a link is replaced, never followed."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    with fresh.open("xb") as handle:
        yield handle
    fresh.replace(file)
