"""MTAN against the plain loop over its tasks."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import study
import torch
from backbone_cases import features
from mtlkit_backbones.mtan import MTAN
from plain import assert_as_near_in_bf16, assert_same, disturbed, twin
from torch import Tensor, nn

Attention = Literal["encoder", "encoder-decoder"]
both = pytest.mark.parametrize("attention", ["encoder", "encoder-decoder"])


@both
@pytest.mark.parametrize(
    ("tasks", "dense_tasks", "asked"),
    [("a", "a", "a"), ("abc", "ac", "abc"), ("abc", "ac", "ba"), ("abcdef", "bf", "abcdef")],
)
@pytest.mark.parametrize("keeps", ["keeps activations", "computes them again"])
@pytest.mark.parametrize("mode", ["training", "evaluation", "without norm"])
def test_mtan_is_the_plain_loop(
    attention: Attention, tasks: str, dense_tasks: str, asked: str, keeps: str, mode: str
) -> None:
    torch.manual_seed(0)
    norm: Literal["batch", "none"] = "none" if mode == "without norm" else "batch"
    options: Any = {"attention": attention, "width": 2, "norm": norm}
    backbone = MTAN([*tasks], [*dense_tasks], 3, **options).train(mode != "evaluation")
    backbone = disturbed(backbone)
    plain = twin(backbone, study.MTAN([*tasks], [*dense_tasks], 3, **options))
    if keeps == "computes them again":
        backbone.checkpoint_activations()
    assert_same(backbone, plain, torch.randn(2, 3, 64, 96, dtype=torch.float64), asked)


@both
def test_mtan_is_the_plain_loop_channels_last(attention: Attention) -> None:
    torch.manual_seed(0)
    options: Any = {"attention": attention, "width": 3}
    backbone = disturbed(MTAN("abc", "ac", 3, **options))
    plain = twin(backbone, study.MTAN("abc", "ac", 3, **options))
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64).to(memory_format=torch.channels_last)
    assert_same(backbone, plain, x, "abc")


@both
def test_bf16_is_as_near_as_the_plain_loops(attention: Attention) -> None:
    torch.manual_seed(0)
    options: Any = {"attention": attention, "width": 8}
    backbone = MTAN("abc", "ac", 3, **options)
    plain = twin(backbone, study.MTAN("abc", "ac", 3, **options))
    assert_as_near_in_bf16(backbone, plain, torch.randn(4, 3, 96, 96))


@both
def test_attention_gives_the_masks_that_the_features_went_through(attention: Attention) -> None:
    torch.manual_seed(0)
    backbone = MTAN("ab", "b", 3, attention=attention, width=3).double()
    plain = twin(backbone, study.MTAN("ab", "b", 3, attention=attention, width=3))
    expected: dict[str, list[Tensor]] = {"a": [], "b": []}
    for name, module in plain.named_modules():
        if isinstance(module, nn.Sigmoid):
            collect = expected[name.split(".")[1]].append
            module.register_forward_hook(lambda _, __, mask, collect=collect: collect(mask))
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    plain(x)
    found = backbone.attention(x)
    assert [len(found[task]) for task in "ab"] == [5, 5 if attention == "encoder" else 10]
    for task in "ab":
        for mine, other in zip(found[task], expected[task], strict=True):
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
