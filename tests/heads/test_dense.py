from dataclasses import replace

import pytest
import torch
from mtlkit_heads.dense import Dense
from mtlkit_heads.unet import UNet
from specs import SPECS, features
from torch import nn


def test_a_dense_map_gets_one_convolution_and_the_levels_are_not_read() -> None:
    spec = replace(SPECS["segnet"], dense=5)
    head = Dense(spec, 3)
    given = features(spec, (32, 64))
    prediction = head(given, (32, 64))
    assert prediction.shape == (2, 3, 32, 64)
    assert isinstance(head.predict, nn.Conv2d)
    prediction.sum().backward()
    assert given.dense is not None
    assert given.dense.grad is not None
    assert all(level.grad is None for level in given.levels)
    assert all(p.grad is not None for p in head.parameters())


def test_without_a_dense_map_it_is_the_chosen_decoder() -> None:
    spec = SPECS["convolutional"]
    torch.manual_seed(0)
    dense = Dense(spec, 3).eval()
    torch.manual_seed(0)
    unet = UNet(spec, 3).eval()
    given = features(spec, (64, 64))
    torch.testing.assert_close(dense(given, (64, 64)), unet(given, (64, 64)))
    assert Dense(spec, 3, decoder="linknet").predict.__class__.__name__ == "LinkNet"


@pytest.mark.parametrize("decoder", ["unett", "linear", "dense"])
def test_an_unknown_decoder_is_refused(decoder: str) -> None:
    with pytest.raises(ValueError, match=f"decoder must be one of .*unet.*, but got '{decoder}'"):
        Dense(SPECS["convolutional"], 3, decoder=decoder)
