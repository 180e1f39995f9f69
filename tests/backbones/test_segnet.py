"""SegNet against its formulas."""

from collections.abc import Callable

import plain_networks
import pytest
import torch
from backbone_cases import features
from mtlkit_backbones.segnet import SegNet
from torch import Tensor

TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_segnet_is_the_plain_network(norm: str) -> None:
    torch.manual_seed(0)
    backbone = SegNet(("a", "b"), ("b",), 3, width=3, norm=norm).double()  # type: ignore[arg-type]
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    weights = plain_networks.leaves(backbone)
    found = features(backbone, x)
    levels, dense = plain_networks.segnet(x, weights)
    assert found["b"].dense is not None
    ours = (*found["b"].levels, found["b"].dense)
    for mine, plain in zip(ours, (*levels, dense), strict=True):
        torch.testing.assert_close(mine, plain, **TOLERANCE)
    random = [torch.randn_like(tensor) for tensor in ours]
    sum((a * r).sum() for a, r in zip(ours, random, strict=True)).backward()  # type: ignore[union-attr]
    sum((a * r).sum() for a, r in zip((*levels, dense), random, strict=True)).backward()  # type: ignore[union-attr]
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None
        largest = float(weights[name].grad.abs().max())  # type: ignore[union-attr]
        torch.testing.assert_close(
            parameter.grad, weights[name].grad, rtol=1e-9, atol=1e-9 * max(largest, 1)
        )


def test_tasks_share_one_decoder_that_runs_once(counted: Callable[..., list[Tensor]]) -> None:
    backbone = SegNet(("a", "b", "c"), ("a", "c"), width=2)
    assert backbone.decoder is not None
    runs = counted(backbone.decoder)
    found = features(backbone, torch.randn(1, 3, 64, 64))
    assert len(runs) == 1
    assert found["a"].dense is found["c"].dense


def test_the_decoder_rests_when_no_dense_task_is_asked_for(
    counted: Callable[..., list[Tensor]],
) -> None:
    backbone = SegNet(("a", "b"), ("a",), width=2)
    assert backbone.decoder is not None
    runs = counted(backbone.decoder)
    features(backbone, torch.randn(1, 3, 64, 64), ("b",))
    assert runs == []


def test_without_dense_tasks_there_is_no_decoder() -> None:
    assert not [name for name, _ in SegNet(("a",), width=2).named_parameters() if "decoder" in name]


def test_the_full_network_has_the_published_shape() -> None:
    with torch.device("meta"):
        backbone = SegNet(("a",), ("a",))
    shapes = [layer[0].weight.shape[:2] for layer in backbone.encoder.layers()]
    assert [tuple(s) for s in shapes] == [
        *[(64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (256, 256)],
        *[(512, 256), *[(512, 512)] * 5],
    ]
    assert backbone.decoder is not None
    decoder = [p.shape[:2] for p in backbone.decoder.parameters() if p.ndim == 4]
    assert [tuple(s) for s in decoder] == [
        *[(512, 512)] * 5,
        *[(256, 512), (256, 256), (256, 256), (128, 256), (128, 128), (64, 128), (64, 64)],
        (64, 64),
    ]
    assert backbone.spec.channels == (64, 128, 256, 512, 512, 512)
    assert backbone.spec.strides == (1, 2, 4, 8, 16, 32)
    assert backbone.spec.dense == 64
