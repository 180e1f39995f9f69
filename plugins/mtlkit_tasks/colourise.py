"""Colours from brightness."""

import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, Decoded, Task
from mtlkit_tasks._image import picture, psnr, resized
from mtlkit_tasks._masked import elements, elementwise_sum, widen
from mtlkit_tasks._metric import SampleMean

_L_SCALE, _AB_SCALE = 100.0, 110.0


class Colourise(Task):
    """The a and b channels of Lab, when the network sees L only; L1 loss.

    The network sees L / 100 and predicts a / 110 and b / 110. The target keeps L as its first
    channel, which the picture, not the loss, needs.
    """

    output = "map"
    default_head = "dense"
    metric_names = ("psnr",)
    primary = "psnr"
    view_channels = 1
    out_channels = 2

    def __init__(self, id: str, spec: DatasetSpec, image_size: tuple[int, int], /) -> None:
        super().__init__(id, spec, image_size)

    def view(self, images: Tensor, seeds: Tensor | None) -> Tensor:
        """The brightness ``[B, 1, H, W]``."""
        return _scaled_lab(images)[:, :1]

    def make_target(self, images: Tensor) -> Tensor:
        """Scaled Lab ``[B, 3, H, W]``."""
        return _scaled_lab(images)

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over pixels and the two channels and their number."""
        total = elementwise_sum(_absolute, prediction, target[:, 1:], present)
        return total, self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Number of pixels times two."""
        return elements(target[:, 1:].shape, present)

    def metric(self) -> SampleMean:
        """Mean over images."""
        return SampleMean(self.metric_names)

    def update(
        self, metric: SampleMean, prediction: Tensor, target: Tensor, present: Tensor
    ) -> None:
        """Feed one batch; images are compared in RGB."""
        predicted = torch.cat((target[:, :1], prediction.to(target.dtype)), 1)
        metric.update([psnr(_rgb(predicted), _rgb(target))], present)

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``image``: the picture's own brightness in the predicted colours."""
        return _coloured(prediction.detach(), image)

    def meaning(self) -> str:
        """Scaled a and b of Lab."""
        return (
            f"a and b of CIE Lab (D65), divided by {_AB_SCALE:g}; with the picture's own L they "
            "are its colours"
        )

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """``image``: the picture's own brightness in the true colours."""
        return _coloured(target[1:], image)

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The coloured picture itself."""
        coloured: Tensor = decoded["image"]
        return coloured


def _scaled_lab(images: Tensor) -> Tensor:
    lab: Tensor = rgb_to_lab(images)
    return lab / lab.new_tensor((_L_SCALE, _AB_SCALE, _AB_SCALE)).view(3, 1, 1)


def _rgb(scaled: Tensor) -> Tensor:
    """RGB in [0, 1] of scaled Lab."""
    scale = scaled.new_tensor((_L_SCALE, _AB_SCALE, _AB_SCALE)).view(3, 1, 1)
    rgb: Tensor = lab_to_rgb(scaled * scale)
    return rgb


def _coloured(ab: Tensor, image: Tensor) -> Decoded:
    ab = resized(widen(ab), image)
    brightness = _scaled_lab(image.to(ab.device) / 255)[:1]
    return {"image": picture(_rgb(torch.cat((brightness, ab))))}


def _absolute(prediction: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(prediction, target, reduction="none")
