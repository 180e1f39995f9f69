"""Features of several kinds of backbones, made of random numbers."""

import torch
from torch import Tensor

from mtlkit import Features, FeatureSpec

SPECS = {
    "convolutional": FeatureSpec((4, 6, 8, 12, 16), (2, 4, 8, 16, 32)),
    "no stride 2": FeatureSpec((4, 8, 12, 16), (4, 8, 16, 32)),
    "from stride 1": FeatureSpec((4, 4, 6, 8, 12, 16), (1, 2, 4, 8, 16, 32)),
    "segnet": FeatureSpec((4, 6, 8, 12, 16), (1, 2, 4, 8, 16)),
    "plain transformer": FeatureSpec((16, 16, 16, 16), (16, 16, 16, 16)),
    "deep plain transformer": FeatureSpec((8,) * 6, (16,) * 6),
    "three plain levels": FeatureSpec((8, 8, 8), (16, 16, 16)),
    "patch 14": FeatureSpec((12, 12, 12, 12), (14, 14, 14, 14)),
    "one level": FeatureSpec((12,), (16,)),
    "coarse only": FeatureSpec((8, 12), (16, 32)),
    "dilated": FeatureSpec((4, 6, 8, 12, 16), (2, 4, 8, 16, 16)),
    "uneven strides": FeatureSpec((4, 8, 12), (3, 6, 12)),
}


def features(
    spec: FeatureSpec, size: tuple[int, int], *, batch: int = 2, dtype: torch.dtype = torch.float32
) -> Features:
    height, width = size
    random = torch.Generator().manual_seed(0)

    def level(channels: int, stride: int) -> Tensor:
        shape = (batch, channels, -(-height // stride), -(-width // stride))
        return torch.randn(shape, generator=random, dtype=dtype).requires_grad_()

    levels = tuple(map(level, spec.channels, spec.strides))
    return Features(levels, None if spec.dense is None else level(spec.dense, 1))
