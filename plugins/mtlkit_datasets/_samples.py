"""Arrays to what a sample holds, and an order of samples that no run of a program can change."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from ._boxes import Box


def as_image(pixels: NDArray[Any], /) -> tv_tensors.Image:
    """An RGB picture uint8 [H, W, 3] as a sample's image [3, H, W], without a copy."""
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))


def as_box(box: Box, size: tuple[int, ...], step: int = 1, /) -> tv_tensors.BoundingBoxes:
    """A sample's box [1, 4], of one in ``step`` times as many pixels in each direction.

    ``size`` is height and width of the sample's image.
    """
    return tv_tensors.BoundingBoxes(
        torch.tensor([box], dtype=torch.float32) / step,
        format="XYXY",
        canvas_size=(size[0], size[1]),
    )


def shuffled(ids: Iterable[str], /) -> list[str]:
    """The ids in an order that depends on nothing but the ids themselves."""

    def place(id: str) -> bytes:
        # a file's name need not be text, and then holds surrogates
        return hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=8).digest()

    return sorted(ids, key=place)


def natural(id: str, /) -> list[str | int]:
    """By which names are sorted as people count: 2 before 10."""
    return [int(word) if word.isdecimal() else word for word in re.split(r"(\d+)", id)]
