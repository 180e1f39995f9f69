import itertools

import pytest
import torch
from mtlkit_heads._pyramid import Pyramid, resize
from specs import SPECS, features

from mtlkit import FeatureSpec

_ = None


@pytest.mark.parametrize(
    ("strides", "least", "sources"),
    [
        ((2, 4, 8, 16, 32), 3, [_, 0, 1, 2, 3, 4]),
        ((4, 8, 16, 32), 3, [_, _, 0, 1, 2, 3]),
        ((1, 2, 4, 8, 16, 32), 3, [_, 1, 2, 3, 4, 5]),
        ((1, 2, 4, 8, 16), 3, [_, 1, 2, 3, 4]),
        ((1, 2, 4, 8, 16), 5, [_, 1, 2, 3, 4, 4]),
        ((16, 16, 16, 16), 3, [_, _, 0, 1, 2, 3]),
        ((16,) * 12, 3, [_, _, 8, 9, 10, 11]),
        ((16, 16), 3, [_, _, 0, 0, 0, 1]),
        ((14,) * 4, 3, [_, _, 0, 1, 2, 3]),
        ((16,), 3, [_, _, 0, 0, 0]),
        ((16, 32), 3, [_, _, 0, 0, 0, 1]),
        ((2, 4, 8, 16, 16), 3, [_, 0, 1, 2, 4]),
        ((8, 16, 32, 64), 3, [_, _, 0, 0, 1, 3]),
        ((3, 6, 12), 3, [_, _, 0, 1, 2]),
    ],
)
def test_levels_go_to_the_nearest_power_of_two(
    strides: tuple[int, ...], least: int, sources: list[int | None]
) -> None:
    assert Pyramid(FeatureSpec((8,) * len(strides), strides), least).sources == sources


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("size", [(64, 96), (50, 70), (32, 32)])
def test_each_level_is_twice_as_large_as_the_next(spec: FeatureSpec, size: tuple[int, int]) -> None:
    pyramid = Pyramid(spec, 3)
    levels = pyramid(features(spec, size).levels, size)
    assert [level.shape[1] for level in levels] == pyramid.channels
    assert min(levels[-1].shape[-2:]) >= 2
    for fine, coarse in itertools.pairwise(levels):
        assert fine.shape[-2:] == (2 * coarse.shape[-2], 2 * coarse.shape[-1])


def test_levels_of_a_doubling_pyramid_are_passed_on_untouched() -> None:
    spec = SPECS["convolutional"]
    given = features(spec, (64, 96)).levels
    assert all(a is b for a, b in zip(Pyramid(spec, 3)(given, (64, 96))[1:], given, strict=True))


def test_resizing_to_half_averages_two_by_two_pixels() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    torch.testing.assert_close(resize(x, (2, 2)), torch.nn.functional.avg_pool2d(x, 2))
