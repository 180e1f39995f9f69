"""A task, for example: ``mtlkit train --tasks seg,cls,my-plugin``."""

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MetricCollection

from mtlkit import DatasetSpec, Decoded, Task


class MyPlugin(Task):
    """The mean colour of the clean image.

    It needs no label. A task that learns one sets ``kind`` and ``label`` instead of writing
    ``make_target``.

    Args:
        power: to which errors are raised, at least 1.

    Raises:
        ValueError: ``power`` is less than 1.
    """

    output = "vector"
    default_head = "linear"
    metric_names = ("error",)
    primary = "error"
    higher_is_better = False
    out_channels = 3

    def __init__(
        self, id: str, spec: DatasetSpec, image_size: tuple[int, int], /, *, power: float = 2.0
    ) -> None:
        super().__init__(id, spec, image_size)
        if power < 1:
            raise ValueError(f"power must be at least 1, but got {power}")
        self.power = power

    def make_target(self, images: Tensor) -> Tensor:
        """Red, green and blue in [0, 1]."""
        return images.mean((2, 3))  # [B, 3]

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over images and their number."""
        error = torch.where(present[:, None], prediction - target, 0)
        return error.abs().pow(self.power).mean(1).sum(), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Number of images."""
        return present.sum().float()

    def metric(self) -> MetricCollection:
        """The mean absolute error."""
        return MetricCollection({"error": MeanAbsoluteError()})

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``colour``: red, green and blue in [0, 1]."""
        return {"colour": prediction.float().clamp(0, 1).tolist()}

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """``colour``: red, green and blue in [0, 1]."""
        return {"colour": target.tolist()}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The colour in a corner of the image."""
        drawn = image.clone()
        _, height, width = image.shape
        colour = torch.tensor(decoded["colour"]).mul(255).to(image)  # [3]
        drawn[:, : height // 4, : width // 4] = colour[:, None, None]
        return drawn
