"""Denoising, self-supervised."""

from typing import Any

from torch import Tensor

from mtlkit import DatasetSpec, Decoded, Task, seeded_normal
from mtlkit_tasks._drawing import as_picture
from mtlkit_tasks._quality import Quality
from mtlkit_tasks._sums import labelled_elements, labelled_sum


class Denoise(Task):
    """The clean picture, from one with normal noise; squared error.

    Args:
        mean: of the noise, in grey levels of 0 to 255.
        std: of the noise, in grey levels, 0 or more.

    Raises:
        ValueError: ``std`` is negative.
    """

    output = "map"
    default_head = "dense"
    metric_names = ("psnr", "ssim")
    primary = "psnr"
    view_channels = 3
    out_channels = 3

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        mean: float = 5.0,
        std: float = 2.0,
    ) -> None:
        super().__init__(id, spec, image_size)
        if std < 0:
            raise ValueError(f"std must be 0 or more, but is {std}")
        self.mean = mean
        self.std = std

    def view(self, images: Tensor, seeds: Tensor | None) -> Tensor:
        """The images with noise of their own; at prediction they are taken to have it already."""
        if seeds is None:
            return images
        noise = seeded_normal(seeds, tuple(images.shape[1:]), images.device)
        return (images + (self.mean + self.std * noise) / 255).clamp(0, 1)

    def make_target(self, images: Tensor) -> Tensor:
        """The clean images."""
        return images

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error, summed over pixels and channels."""
        error = (prediction - target).square()
        return labelled_sum(error, present), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Pixels times channels."""
        return labelled_elements(target, present)

    def metric(self) -> Any:
        """PSNR and SSIM."""
        return Quality(with_ssim=True)

    def update(self, metric: Any, prediction: Tensor, target: Tensor, present: Tensor) -> None:
        """Add one batch."""
        metric.update(prediction, target, present)

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``image``: the clean picture, uint8 [3, H, W]."""
        return {"image": as_picture(prediction, image)}

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """The same of the truth."""
        return self.decode(target, image)

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The clean picture."""
        drawn: Tensor = decoded["image"]
        return drawn
