from importlib import import_module

import pytest
import torch
from mtlkit_heads import mtlkit_heads
from specs import SPECS, features

from mtlkit import FeatureSpec, Head

SMALL = {
    "deeplabv3": {"channels": 8},
    "deeplabv3plus": {"channels": 8},
    "dpt": {"level_channels": (4, 6, 8, 8), "channels": 8},
    "fpn": {"pyramid_channels": 8, "channels": 32},
    "linknet": {"channels": 8},
    "manet": {"channels": (16, 12, 8, 8, 4), "attention_channels": 4},
    "pan": {"channels": 8},
    "pspnet": {"channels": 8},
    "segformer": {"channels": 8},
    "unet": {"channels": (16, 12, 8, 8, 4)},
    "unetplusplus": {"channels": (16, 12, 8, 8, 4)},
    "upernet": {"channels": 8},
}


def head_class(name: str) -> type[Head]:
    module, _, attribute = mtlkit_heads()[name].partition(":")
    return getattr(import_module(module), attribute)


def test_every_registered_decoder_is_in_the_table_of_this_test() -> None:
    assert set(SMALL) == set(mtlkit_heads()) - {"dense", "linear", "spatial"}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", SMALL)
def test_a_decoder_fits_any_backbone_and_uses_all_its_parameters(
    name: str, spec: FeatureSpec
) -> None:
    torch.manual_seed(0)
    head = head_class(name)(spec, 3, **SMALL[name]).train()
    size = (64, 96)
    prediction = head(features(spec, size, batch=1), size)
    assert prediction.shape == (1, 3, *size)
    assert prediction.isfinite().all()
    assert prediction.min() < 0 < prediction.max()
    prediction.square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", SMALL)
def test_a_decoder_has_its_registered_defaults(name: str) -> None:
    head = head_class(name)(SPECS["convolutional"], 2).eval()
    with torch.no_grad():
        assert head(features(SPECS["convolutional"], (64, 64)), (64, 64)).shape == (2, 2, 64, 64)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(32, 32), (40, 72)])
def test_a_decoder_trains_on_one_tiny_or_odd_image(name: str, size: tuple[int, int]) -> None:
    spec = SPECS["convolutional"]
    head = head_class(name)(spec, 1, **SMALL[name]).train()
    assert head(features(spec, size, batch=1), size).shape == (1, 1, *size)


@pytest.mark.parametrize("name", SMALL)
def test_a_prediction_in_evaluation_does_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    spec = SPECS["convolutional"]
    head = head_class(name)(spec, 1, **SMALL[name]).double().eval()
    batch = features(spec, (64, 64), dtype=torch.float64)
    with torch.no_grad():
        alone = head(batch._replace(levels=tuple(x[:1] for x in batch.levels)), (64, 64))
        torch.testing.assert_close(head(batch, (64, 64))[:1], alone)


@pytest.mark.parametrize(
    ("name", "spec", "options", "message"),
    [
        ("unet", "convolutional", {"channels": (8, 4)}, "at least 5 numbers for the 5 steps"),
        ("fpn", "convolutional", {"channels": 40}, "multiple of 32, but got 40"),
        ("deeplabv3", "convolutional", {"rates": (1, 2)}, "three positive numbers, but got 1, 2"),
        ("dpt", "convolutional", {"level_channels": (1, 2)}, "must be four numbers, but got 2"),
    ],
)
def test_wrong_options_are_refused_when_the_head_is_built(
    name: str, spec: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        head_class(name)(SPECS[spec], 2, **options)


def test_heads_that_divide_channels_by_four_refuse_backbones_they_cannot_divide() -> None:
    with pytest.raises(ValueError, match="linknet divides each level's channels by 4"):
        head_class("linknet")(FeatureSpec((3, 8, 8), (4, 8, 16)), 2)
    with pytest.raises(ValueError, match="pspnet divides the last level's channels by 4"):
        head_class("pspnet")(FeatureSpec((8, 8, 10), (4, 8, 16)), 2)
