"""Likeness of images in [0, 1], per image, and pictures made of them."""

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST_ERROR = 1e-10
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(predicted: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image ``[B, C, H, W]``: ``[B]``, at most 100."""
    error = (predicted - truth).square().mean((1, 2, 3))
    return -10 * error.clamp_min(_LEAST_ERROR).log10()


def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image ``[B, C, H, W]`` in [0, 1]: ``[B]``.

    Gaussian window of 11 pixels, sigma 1.5, over the image and its reflection at the border: what
    torchmetrics computes by a convolution per channel, which on a CPU takes five times as long as
    the two matrix products here.

    Reference: Wang et al., "Image Quality Assessment", TIP 2004, eq. 13.
    """
    predicted, truth = (
        F.pad(image, (_WINDOW // 2,) * 4, mode="reflect") for image in (predicted, truth)
    )
    maps = torch.stack((predicted, truth, predicted**2, truth**2, predicted * truth))
    rows, columns = (_gaussian(side, maps) for side in maps.shape[-2:])
    mean_p, mean_t, square_p, square_t, product = rows @ maps @ columns.T
    covariance = product - mean_p * mean_t
    variances = square_p - mean_p**2 + square_t - mean_t**2
    likeness = (2 * mean_p * mean_t + _C1) * (2 * covariance + _C2)
    values: Tensor = likeness / ((mean_p**2 + mean_t**2 + _C1) * (variances + _C2))
    return values.mean((1, 2, 3))


def _gaussian(side: int, like: Tensor) -> Tensor:
    """The window at every place within ``side`` pixels: ``[side - 10, side]``."""
    centre = torch.arange(side - _WINDOW + 1, device=like.device)[:, None] + _WINDOW // 2
    distance = torch.arange(side, device=like.device) - centre
    bell = torch.exp(-distance.square() / (2 * _SIGMA**2)) * (distance.abs() <= _WINDOW // 2)
    return (bell / bell.sum(1, keepdim=True)).to(like.dtype)


def picture(image: Tensor) -> Tensor:
    """``[C, H, W]`` in [0, 1] as uint8 RGB ``[3, H, W]``."""
    return (image.float().clamp(0, 1) * 255).round().byte().expand(3, -1, -1).contiguous().cpu()


def resized(image: Tensor, like: Tensor) -> Tensor:
    """``[C, h, w]`` at the height and width of ``like``, bilinearly."""
    size = like.shape[-2:]
    if image.shape[-2:] == size:
        return image
    image = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)
    return image[0]
