"""The VGG-16 encoder that SegNet and MTAN share, and SegNet's decoder.

Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, arXiv 1409.1556, configuration D.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "none"]

Recompute = Callable[..., Any]
"""Calls a function with inputs, as :meth:`mtlkit.Backbone.recompute` does."""

DEPTHS = (2, 2, 3, 3, 3)
"""3x3 convolutions per block."""


def block_channels(width: int) -> tuple[int, ...]:
    """Output channels of the five blocks.

    Raises:
        ValueError: ``width`` is below 1.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, but got {width}")
    return (width, 2 * width, 4 * width, 8 * width, 8 * width)


def conv(
    in_channels: int, out_channels: int, norm: Norm, *, kernel: int = 3, bias: bool = False
) -> list[nn.Module]:
    """A convolution and its batch norm; without the latter it has a bias anyway."""
    bias = bias or norm == "none"
    layer = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    return [layer] if norm == "none" else [layer, nn.BatchNorm2d(out_channels)]


def conv_relu(
    in_channels: int, out_channels: int, norm: Norm, *, bias: bool = False
) -> nn.Sequential:
    """A 3x3 convolution, its batch norm, and a ReLU."""
    return nn.Sequential(*conv(in_channels, out_channels, norm, bias=bias), nn.ReLU(inplace=True))


def kaiming(module: nn.Module) -> None:
    """Initialise all convolutions for ReLU."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Encoded(NamedTuple):
    """What the blocks of the encoder computed, finest first."""

    firsts: tuple[Tensor, ...]
    """Output of the first convolution of each block."""
    lasts: tuple[Tensor, ...]
    """Output of the last one, before pooling."""
    indices: tuple[Tensor, ...]
    """Where in ``lasts`` the maxima were."""
    pooled: Tensor
    """The last block after pooling."""


class Encoder(nn.Module):
    """The 13 convolutions of VGG-16 in five blocks, each followed by a 2x2 max-pool."""

    def __init__(self, in_channels: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.channels = block_channels(width)
        self.blocks = nn.ModuleList()
        previous = in_channels
        for depth, channels in zip(DEPTHS, self.channels, strict=True):
            inputs = (previous, *[channels] * (depth - 1))
            # VGG's convolutions have biases, whether batch norm follows or not.
            block = [conv_relu(c, channels, norm, bias=True) for c in inputs]
            self.blocks.append(nn.Sequential(*block))
            previous = channels
        kaiming(self)

    def layers(self) -> list[nn.Sequential]:
        """All convolutions in order, each with its batch norm and ReLU."""
        return [cast(nn.Sequential, m) for block in self.blocks for m in block.children()]

    def forward(self, x: Tensor, recompute: Recompute) -> Encoded:
        """Encode ``[B, C, H, W]``."""
        firsts, lasts, indices = [], [], []
        for block in self.blocks:
            first, last, x, where = recompute(_encode, block, x)
            firsts.append(first)
            lasts.append(last)
            indices.append(where)
        return Encoded(tuple(firsts), tuple(lasts), tuple(indices), x)


def _encode(block: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs of a block's first and last convolution, the pooled last one, and from where."""
    first = last = block[0](x)
    for layer in block[1:]:
        last = layer(last)
    pooled, where = F.max_pool2d(last, 2, return_indices=True)
    return first, last, pooled, where


class Stage(NamedTuple):
    """What one stage of the decoder computed."""

    unpooled: Tensor
    last: Tensor


class Decoder(nn.Module):
    """The encoder's mirror image: unpooling at the stored indices, then convolutions.

    As in SegNet, the last convolution of a stage reduces the channels to the next stage's.
    """

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        channels = block_channels(width)
        self.stages = nn.ModuleList()
        for depth, c_in, c_out in reversed(
            list(zip(DEPTHS, channels, (width, *channels[:-1]), strict=True))
        ):
            outputs = (*[c_in] * (depth - 1), c_out)
            self.stages.append(nn.Sequential(*[conv_relu(c_in, c, norm) for c in outputs]))
        kaiming(self)

    def forward(self, x: Tensor, indices: Sequence[Tensor], recompute: Recompute) -> list[Stage]:
        """Decode the pooled map of the coarsest block; coarsest stage first."""
        stages: list[Stage] = []
        for stage, where in zip(self.stages, reversed(indices), strict=True):
            stages.append(recompute(_decode, stage, x, where))
            x = stages[-1].last
        return stages


def _decode(stage: nn.Module, x: Tensor, where: Tensor) -> Stage:
    unpooled = unpool(x, where)
    return Stage(unpooled, stage(unpooled))


def unpool(x: Tensor, indices: Tensor) -> Tensor:
    """Put each value where its maximum was, zeros elsewhere: ``[B, C, 2H, 2W]``.

    What torch's own ``max_unpool2d`` does, but its gradient is in the memory order of ``x``, which
    costs half the time channels last, and deterministic algorithms are no reason to refuse it.
    """
    b, c, h, w = x.shape
    last = x.is_contiguous(memory_format=torch.channels_last)
    flat, where = (t.flatten(2).mT if last else t.flatten(2) for t in (x, indices))
    zeros = x.new_zeros((b, 4 * h * w, c) if last else (b, c, 4 * h * w))
    out = zeros.scatter(1 if last else 2, where, flat)
    return (out.mT if last else out).view(b, c, 2 * h, 2 * w)
