"""Canny's edges, without waiting for the device."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_GREY = (0.299, 0.587, 0.114)
_BLUR = tuple(math.exp(-(i**2) / 2) for i in range(-2, 3))  # sigma 1
# (dy, dx) of the neighbour in the gradient's direction, in eighths of a turn from +x toward +y
_NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1))


def canny(images: Tensor, *, low: float, high: float, reach: int) -> Tensor:
    """Edges of ``[B, 3, H, W]`` in [0, 1]: bool ``[B, 1, H, W]``.

    Blur of sigma 1, Sobel gradient (not normalised: a unit step has about 2.6), thinning across
    the gradient, then pixels above ``low`` that a chain of at most ``reach`` others joins to one
    above ``high``. Following chains to their end would need a copy to the host in every round.

    Reference: Canny, "A Computational Approach to Edge Detection", TPAMI 1986.
    """
    grey = sum(weight * images[:, i : i + 1] for i, weight in enumerate(_GREY))
    assert isinstance(grey, Tensor)
    dx, dy = _gradient(_blur(grey))
    magnitude = torch.sqrt(dx * dx + dy * dy)
    ridge = magnitude * _is_ridge(magnitude, dx, dy)
    return _follow(ridge > high, ridge > low, reach)


def _blur(x: Tensor) -> Tensor:
    weights = [w / sum(_BLUR) for w in _BLUR]
    height, width = x.shape[-2:]
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    rows = [w * padded[..., i : i + height, :] for i, w in enumerate(weights)]
    x = torch.stack(rows).sum(0)
    return torch.stack([w * x[..., i : i + width] for i, w in enumerate(weights)]).sum(0)


def _gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's derivatives along x and y."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    down = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    right = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    return down[..., 2:] - down[..., :-2], right[..., 2:, :] - right[..., :-2, :]


def _is_ridge(magnitude: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Where no neighbour across the edge is stronger; of two equal ones the first is kept."""
    height, width = magnitude.shape[-2:]
    padded = F.pad(magnitude, (1, 1, 1, 1))
    flat = math.tan(math.pi / 8)
    along_x, along_y = dy.abs() <= flat * dx.abs(), dx.abs() <= flat * dy.abs()
    same_sign = dx * dy > 0
    ridge = torch.zeros_like(along_x)
    directions = (
        along_x,
        ~along_x & ~along_y & same_sign,
        along_y & ~along_x,
        ~along_x & ~along_y & ~same_sign,
    )
    for here, (y, x) in zip(directions, _NEIGHBOURS, strict=True):
        after = padded[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width]
        before = padded[..., 1 - y : 1 - y + height, 1 - x : 1 - x + width]
        wins = magnitude > after if x * y else magnitude >= after
        ridge |= here & wins & (magnitude > before)
    return ridge


def _follow(strong: Tensor, weak: Tensor, reach: int) -> Tensor:
    """``weak`` pixels that at most ``reach`` steps, each to one of 8 neighbours, join to strong."""
    for _ in range(reach):
        wide = strong.clone()
        wide[..., 1:] |= strong[..., :-1]
        wide[..., :-1] |= strong[..., 1:]
        strong = wide.clone()
        strong[..., 1:, :] |= wide[..., :-1, :]
        strong[..., :-1, :] |= wide[..., 1:, :]
        strong &= weak
    return strong
