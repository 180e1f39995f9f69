"""SegNet against the plain network."""

from collections.abc import Callable
from typing import Any

import pytest
import study
import torch
import torch.nn.functional as F
from backbone_cases import features
from mtlkit_backbones._vgg import unpool
from mtlkit_backbones.segnet import SegNet
from plain import assert_as_near_in_bf16, assert_same, disturbed, twin
from torch import Tensor


@pytest.mark.parametrize("keeps", ["keeps activations", "computes them again"])
@pytest.mark.parametrize("mode", ["training", "evaluation", "without norm", "channels last"])
def test_segnet_is_the_plain_network(keeps: str, mode: str) -> None:
    torch.manual_seed(0)
    options: Any = {"width": 3, "norm": "none" if mode == "without norm" else "batch"}
    backbone = disturbed(SegNet("abc", "b", 3, **options).train(mode != "evaluation"))
    plain = twin(backbone, study.SegNet("abc", "b", 3, **options))
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    if mode == "channels last":
        backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(memory_format=torch.channels_last)
    if keeps == "computes them again":
        backbone.checkpoint_activations()
    assert_same(backbone, plain, x, "cb")


def test_bf16_is_as_near_as_the_plain_networks() -> None:
    torch.manual_seed(0)
    backbone = SegNet("ab", "b", 3, width=8)
    plain = twin(backbone, study.SegNet("ab", "b", 3, width=8))
    assert_as_near_in_bf16(backbone, plain, torch.randn(4, 3, 96, 96))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_unpooling_is_torchs_own_and_keeps_the_memory_order(order: torch.memory_format) -> None:
    x = torch.randint(0, 3, (2, 3, 8, 6), dtype=torch.float64)  # with many ties
    pooled, indices = F.max_pool2d(x.to(memory_format=order), 2, return_indices=True)
    ours, torchs = pooled.clone().requires_grad_(), pooled.clone().requires_grad_()
    found, expected = unpool(ours, indices), F.max_unpool2d(torchs, indices, 2)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=order)
    random = torch.randn(found.shape, dtype=found.dtype)
    found.backward(random)
    expected.backward(random)
    assert ours.grad is not None
    assert torchs.grad is not None
    assert torch.equal(ours.grad, torchs.grad)
    assert ours.grad.is_contiguous(memory_format=order)


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
