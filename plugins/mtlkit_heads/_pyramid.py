"""Any backbone's levels as the pyramid of doubling strides that decoders expect."""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from mtlkit import FeatureSpec

_DEEPEST = 5  # stride 32
_FINEST_NEEDED = 2  # stride 4
_SMALLEST = 2  # pixels; batch normalisation of one 1 x 1 map has no variance


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``x`` at ``size``, bilinearly."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


class Pyramid:
    """Levels of strides 1, 2, 4, ..., ``2**depth``, each exactly twice as large as the next.

    A level goes to the power of two nearest to its stride, at most 32; of several with one stride
    the last is taken. Where all have the same stride (a plain vision transformer), the last four
    become the strides 4, 8, 16 and 32. A missing stride of 4 or more is the nearest level,
    resampled bilinearly. A missing stride 2 has no channels, nor does stride 1, as in
    segmentation_models_pytorch, whose decoders read no level of stride 1.

    Args:
        spec: what the features look like.
        least_depth: the pyramid reaches at least the stride ``2**least_depth``.
    """

    def __init__(self, spec: FeatureSpec, least_depth: int) -> None:
        placed = _place(spec.strides)
        self.depth = max(*placed, least_depth)
        self.sources = [_source(placed, exponent) for exponent in range(self.depth + 1)]
        self.channels = [0 if s is None else spec.channels[s] for s in self.sources]

    def __call__(self, levels: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The pyramid of images of ``size``, finest first."""
        height, width = (max(_SMALLEST, -(-side // 2**self.depth)) for side in size)
        pyramid = []
        for exponent, source in enumerate(self.sources):
            scale = 2 ** (self.depth - exponent)
            shape = (height * scale, width * scale)
            if source is None:
                pyramid.append(levels[-1].new_empty((levels[-1].shape[0], 0, *shape)))
            else:
                pyramid.append(resize(levels[source], shape))
        return pyramid


def is_plain(spec: FeatureSpec) -> bool:
    """Whether there are several levels, all of one stride, as in a plain vision transformer."""
    return len(spec.strides) > 1 and len(set(spec.strides)) == 1


def _place(strides: Sequence[int]) -> dict[int, int]:
    """Which level (value) goes to which exponent of two (key)."""
    count = len(strides)
    if count > 1 and len(set(strides)) == 1:
        return {_DEEPEST - i: count - 1 - i for i in range(min(count, 4))}
    return {min(_DEEPEST, round(math.log2(stride))): i for i, stride in enumerate(strides)}


def _source(placed: dict[int, int], exponent: int) -> int | None:
    if exponent == 0:
        return None
    if exponent in placed:
        return placed[exponent]
    if exponent < _FINEST_NEEDED:
        return None
    return placed[min(placed, key=lambda e: (abs(e - exponent), -e))]
