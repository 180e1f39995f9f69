"""Predictor: answers for pictures, whatever computes the raw predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

from mtlkit.picture import as_picture
from mtlkit.task import Decoded, Task


class Predictor(ABC):
    """From pictures of any size to every task's answer; a subclass writes :meth:`raw`."""

    tasks: dict[str, Task]
    """By id, in their fixed order."""
    image_size: tuple[int, int]
    """Height and width the network sees, in pixels."""

    @abstractmethod
    def raw(self, pictures: Tensor) -> dict[str, Tensor]:
        """Raw predictions by task id, on the CPU.

        Args:
            pictures: uint8 ``[B, 3, H, W]`` of the network's size.
        """

    @torch.inference_mode()
    def predict(self, image: Image.Image | Tensor) -> dict[str, Decoded]:
        """Every task's answer for one picture, in the picture's own pixels.

        Args:
            image: a PIL image of any mode, or uint8 ``[3, H, W]``.

        Returns:
            By task id, what its task decodes; see :meth:`mtlkit.Task.decode`.
        """
        return self.predict_batch([image])[0]

    @torch.inference_mode()
    def predict_batch(self, images: Sequence[Image.Image | Tensor]) -> list[dict[str, Decoded]]:
        """:meth:`predict` for several pictures, of any sizes, in one forward pass."""
        pictures = [as_picture(image) for image in images]
        raw = self.raw(torch.stack([self.resize(picture) for picture in pictures]))
        return [self.decoded(raw, i, picture) for i, picture in enumerate(pictures)]

    def decoded(self, raw: Mapping[str, Tensor], i: int, picture: Tensor) -> dict[str, Decoded]:
        """What sample ``i`` of raw predictions says of its picture, uint8 ``[3, H, W]``."""
        return {id: task.decode(raw[id][i], picture) for id, task in self.tasks.items()}

    def resize(self, picture: Tensor) -> Tensor:
        """``[3, H, W]`` at the size the network sees; the sides are scaled each on their own."""
        return cast(Tensor, transform.resize(picture, list(self.image_size), antialias=True))
