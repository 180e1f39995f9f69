"""Picture: from files and PIL to tensors and back."""

from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transform


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
    # a third of the usual level's time, a seventh more bytes
    Image.fromarray(array).save(file, compress_level=1)
