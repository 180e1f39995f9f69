"""MTAN against its formulas."""

from collections.abc import Callable
from typing import Literal

import plain_networks
import pytest
import torch
from backbone_cases import features
from mtlkit_backbones.mtan import MTAN
from torch import Tensor

Attention = Literal["encoder", "encoder-decoder"]
both = pytest.mark.parametrize("attention", ["encoder", "encoder-decoder"])


@both
@pytest.mark.parametrize(
    ("tasks", "dense_tasks"),
    [("a", "a"), ("a", ""), ("abc", "ac"), ("abcdef", "bcf"), ("abcdef", "")],
)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_mtan_is_the_plain_loop(
    attention: Attention, tasks: str, dense_tasks: str, norm: Literal["batch", "none"]
) -> None:
    torch.manual_seed(0)
    backbone = MTAN([*tasks], [*dense_tasks], 3, attention=attention, width=3, norm=norm).double()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    weights = plain_networks.leaves(backbone)
    found = features(backbone, x)
    plain = plain_networks.mtan(x, weights, [*tasks], [*dense_tasks], attention)
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    for task in tasks:
        levels, dense, _ = plain[task]
        assert (found[task].dense is None) == (dense is None) == (task not in dense_tasks)
        ours += [*found[task].levels, *([found[task].dense] if dense is not None else [])]  # type: ignore[list-item]
        theirs += [*levels, *([dense] if dense is not None else [])]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)
    random = [torch.randn_like(tensor) for tensor in ours]
    torch.stack([(a * r).sum() for a, r in zip(ours, random, strict=True)]).sum().backward()
    torch.stack([(a * r).sum() for a, r in zip(theirs, random, strict=True)]).sum().backward()
    for name, parameter in backbone.named_parameters():
        mine, other = parameter.grad, weights[name].grad
        assert (mine is None) == (other is None)
        if other is not None:
            scale = max(float(other.abs().max()), 1)
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9 * scale)


@both
def test_attention_gives_the_masks_that_the_features_went_through(attention: Attention) -> None:
    torch.manual_seed(0)
    backbone = MTAN(["a", "b"], ["b"], 3, attention=attention, width=3).double()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    plain = plain_networks.mtan(x, plain_networks.leaves(backbone), ["a", "b"], ["b"], attention)
    found = backbone.attention(x)
    assert [len(found[task]) for task in "ab"] == [5, 5 if attention == "encoder" else 10]
    for task in "ab":
        for mine, other in zip(found[task], plain[task][2], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)
            assert 0 <= mine.min() < mine.max() <= 1


@both
def test_a_task_owns_its_masks_and_nothing_else(attention: Attention) -> None:
    backbone = MTAN(["a", "b"], ["b"], 3, attention=attention, width=2)
    names = {id(p): name for name, p in backbone.named_parameters()}
    for task, masks in (("a", ["encoder"]), ("b", ["encoder", "decoder"])):
        owned = [names[id(p)] for p in backbone.own_parameters(task)]
        starts = tuple(f"{where}_masks.{task}." for where in masks)
        assert owned
        assert all(name.startswith(starts) for name in owned)
    shared = {names[id(p)].split(".")[0] for p in backbone.shared_parameters()}
    convs = {"decoder_convs"} if attention == "encoder-decoder" else set()
    assert shared == {"encoder", "encoder_convs", "decoder"} | convs


def test_the_shared_decoder_runs_on_each_dense_tasks_features_with_encoder_attention(
    counted: Callable[..., list[Tensor]],
) -> None:
    backbone = MTAN(["a", "b", "c"], ["a", "c"], width=2)
    assert backbone.decoder is not None
    runs = counted(backbone.decoder)
    found = features(backbone, torch.randn(1, 3, 64, 64))
    assert [run is found[t].levels[-1] for run, t in zip(runs, "ac", strict=True)] == [True, True]


@pytest.mark.parametrize(("asked", "runs"), [("abc", 1), ("b", 0), ("c", 1)])
def test_the_shared_decoder_runs_at_most_once_with_decoder_attention(
    counted: Callable[..., list[Tensor]], asked: str, runs: int
) -> None:
    backbone = MTAN(["a", "b", "c"], ["a", "c"], attention="encoder-decoder", width=2)
    assert backbone.decoder is not None
    calls = counted(backbone.decoder)
    features(backbone, torch.randn(1, 3, 64, 64), (*asked,))
    assert len(calls) == runs


@both
def test_without_dense_tasks_there_is_no_decoder(attention: Attention) -> None:
    backbone = MTAN(["a", "b"], [], attention=attention, width=2)
    assert not [name for name, _ in backbone.named_parameters() if "decoder" in name]


def test_the_shared_convolutions_have_the_published_channels() -> None:
    with torch.device("meta"):
        backbone = MTAN(["a"], ["a"])
    shapes = [tuple(p.shape[:2]) for p in backbone.encoder_convs.parameters() if p.ndim == 4]
    assert shapes == [(128, 64), (256, 128), (512, 256), (512, 512), (512, 512)]
    assert backbone.spec.channels == (128, 256, 512, 512, 512)
    assert backbone.spec.strides == (2, 4, 8, 16, 32)
