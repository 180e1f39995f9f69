"""A head for lengths."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit import Features, FeatureSpec, Head


class Metres(Head):
    """Adds up one convolution per level of the features.

    Args:
        start: about what it predicts before training, in metres.
    """

    output = "map"

    def __init__(self, spec: FeatureSpec, out_channels: int, /, *, start: float = 3.0) -> None:
        super().__init__(spec, out_channels)
        self.levels = nn.ModuleList(nn.Conv2d(c, out_channels, 1) for c in spec.channels)
        self.bias = nn.Parameter(torch.full((out_channels, 1, 1), start))

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        maps = [level(x) for level, x in zip(self.levels, features.levels, strict=True)]
        return self.bias + sum(F.interpolate(x, size, mode="bilinear") for x in maps)
