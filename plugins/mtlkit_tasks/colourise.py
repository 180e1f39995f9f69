"""Colourisation, self-supervised."""

from typing import Any

import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

from mtlkit import Decoded, Task
from mtlkit_tasks._drawing import as_picture
from mtlkit_tasks._quality import Quality
from mtlkit_tasks._sums import labelled_elements, labelled_sum

LIGHTNESS = 100.0
"""L of Lab is in [0, 100]."""
CHROMA = 110.0
"""a and b of sRGB colours lie within about this of 0."""


class Colourise(Task):
    """The colours (a and b of CIE Lab) of a picture of which the network sees the lightness.

    Absolute error. The target holds all of Lab, scaled to about [-1, 1], so that the colours can
    be shown; the lightness has no part in the loss.
    """

    output = "map"
    default_head = "dense"
    metric_names = ("psnr",)
    primary = "psnr"
    view_channels = 1
    out_channels = 2

    def view(self, images: Tensor, seeds: Tensor | None) -> Tensor:
        """The lightness, ``[B, 1, H, W]`` in [0, 1]."""
        lightness: Tensor = rgb_to_lab(images)[:, :1] / LIGHTNESS
        return lightness

    @torch.no_grad()
    def make_target(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]``: L / 100, a / 110, b / 110."""
        lab = rgb_to_lab(images)
        return torch.cat([lab[:, :1] / LIGHTNESS, lab[:, 1:] / CHROMA], dim=1)

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Absolute error, summed over pixels and the two channels."""
        error = (prediction - target[:, 1:]).abs()
        return labelled_sum(error, present), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Pixels times two."""
        return labelled_elements(target[:, 1:], present)

    def metric(self) -> Any:
        """PSNR in RGB."""
        return Quality(with_ssim=False)

    def update(self, metric: Any, prediction: Tensor, target: Tensor, present: Tensor) -> None:
        """Add one batch."""
        metric.update(_rgb(target[:, :1], prediction), _rgb(target[:, :1], target[:, 1:]), present)

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``image``: the lightness of ``image`` in the predicted colours, uint8 [3, H, W]."""
        colours = transform.resize(prediction, list(image.shape[-2:]), antialias=True)
        lightness = self.view(image[None].float() / 255, None)
        return {"image": as_picture(_rgb(lightness, colours[None])[0], image)}

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """The same of the truth."""
        return {"image": as_picture(_rgb(target[None, :1], target[None, 1:])[0], image)}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The coloured picture."""
        drawn: Tensor = decoded["image"]
        return drawn


def _rgb(lightness: Tensor, colours: Tensor) -> Tensor:
    """Scaled L ``[B, 1, H, W]`` and a, b ``[B, 2, H, W]`` as RGB in [0, 1]."""
    rgb: Tensor = lab_to_rgb(torch.cat([lightness * LIGHTNESS, colours * CHROMA], dim=1))
    return rgb
