"""Removing noise."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, Decoded, Task, seeded_normal
from mtlkit_tasks._image import picture, psnr, resized, ssim
from mtlkit_tasks._masked import choose, elements, elementwise_sum
from mtlkit_tasks._metric import SampleMean


class Denoise(Task):
    """The clean image, when the network sees it with Gaussian noise added and clipped.

    Args:
        mean: of the noise, in grey levels of 255.
        std: its standard deviation, in grey levels of 255.
        loss: between prediction and clean image in [0, 1].

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
        loss: Literal["mse", "l1"] = "mse",
    ) -> None:
        super().__init__(id, spec, image_size)
        if std < 0:
            raise ValueError(f"std must not be negative, but got {std}")
        self.mean, self.std = mean, std
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": _squared, "l1": _absolute}
        self._loss = choose("loss", loss, losses)

    def view(self, images: Tensor, seeds: Tensor | None) -> Tensor:
        """The images with noise; as they are at prediction, where ``seeds`` is None."""
        if seeds is None:
            return images
        noise = seeded_normal(seeds, tuple(images.shape[1:]), images.device)
        return (images + (self.mean + self.std * noise.to(images.dtype)) / 255).clamp(0, 1)

    def make_target(self, images: Tensor) -> Tensor:
        """The clean images."""
        return images

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over pixels and channels and their number."""
        total = elementwise_sum(self._loss, prediction, target, present)
        return total, self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Number of pixels times channels."""
        return elements(target.shape, present)

    def metric(self) -> SampleMean:
        """Means over images."""
        return SampleMean(self.metric_names)

    def update(
        self, metric: SampleMean, prediction: Tensor, target: Tensor, present: Tensor
    ) -> None:
        """Feed one batch; predictions are clipped to [0, 1]."""
        clipped = prediction.clamp(0, 1)
        metric.update([psnr(clipped, target), ssim(clipped, target)], present)

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``image``: the clean picture."""
        return {"image": picture(resized(prediction.detach().float(), image))}

    def meaning(self) -> str:
        """A picture."""
        return "the clean picture, RGB in [0, 1]; clip to it"

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """``image``: the clean picture."""
        return {"image": picture(resized(target.float(), image))}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The clean picture itself."""
        cleaned: Tensor = decoded["image"]
        return cleaned


def _squared(prediction: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(prediction, target, reduction="none")


def _absolute(prediction: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(prediction, target, reduction="none")
