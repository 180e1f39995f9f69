"""Activations that are computed again in the backward pass instead of being kept."""

from functools import partial
from typing import Any

import pytest
import torch
from backbone_cases import CASES, Case, features, images, what_a_head_reads
from mtlkit_backbones.any_timm import Timm
from torch import Tensor, nn

from mtlkit import Backbone, ConfigError
from mtlkit.build import build
from mtlkit.config import parse
from mtlkit.measure import peak_bytes

ABLE = {name: case for name, case in CASES.items() if not name.startswith("mobilenet")}
ABLE |= {
    "densenet": Case(Timm, {"model": "densenet121"}),
    "stochastic depth": Case(
        Timm, {"model": "convnext_atto", "options": {"drop_path_rate": 0.5, "drop_rate": 0.5}}
    ),
    "stochastic depth of a vit": Case(
        Timm,
        {"model": "vit_tiny_patch16_224", "options": {"depth": 4, "drop_path_rate": 0.5}},
    ),
}


def trained(backbone: Backbone) -> list[Tensor]:
    """Outputs, all gradients and buffers after a pass that draws from the same random numbers."""
    torch.manual_seed(3)
    read = [what_a_head_reads(f) for f in features(backbone, images(backbone).double()).values()]
    torch.manual_seed(4)  # the backward pass may not depend on it
    torch.autograd.backward(read, [torch.linspace(-1, 1, r.numel()).view_as(r).to(r) for r in read])
    gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
    return [*read, *gradients, *backbone.buffers()]


@pytest.mark.parametrize("case", ABLE.values(), ids=ABLE.keys())
def test_the_result_is_the_same(case: Case) -> None:
    keeps, computes = case().double(), case().double()
    computes.checkpoint_activations()
    for ours, expected in zip(trained(computes), trained(keeps), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["segnet", "mtan", "mtan decoder", "vit"])
def test_it_takes_less_memory(name: str) -> None:
    keeps, computes = CASES[name](), CASES[name]()
    computes.checkpoint_activations()
    kept, computed = (peak_bytes(torch.device("cpu"), partial(work, b)) for b in (keeps, computes))
    assert kept is not None
    assert computed is not None
    assert computed < 0.7 * kept


def work(backbone: Backbone) -> None:
    read = map(what_a_head_reads, features(backbone, images(backbone, 96, 96, batch=32)).values())
    torch.autograd.grad(sum(r.sum() for r in read), backbone.shared_parameters())  # type: ignore[arg-type]


def test_nothing_is_computed_again_where_no_gradient_is_wanted(monkeypatch: Any) -> None:
    backbone = CASES["mtan"]().eval()
    backbone.checkpoint_activations()
    monkeypatch.setattr("mtlkit.backbone.checkpoint", None)
    with torch.no_grad():
        features(backbone, images(backbone))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_norm_is_left_as_it_was_even_by_an_error(momentum: float | None) -> None:
    class Stops(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise RuntimeError("stop")

    backbone = CASES["segnet"]()
    backbone.checkpoint_activations()
    norm = nn.BatchNorm2d(3, momentum=momentum)
    for number in (1, 2):
        out = backbone.recompute(
            lambda norm, x: Stops.apply(norm(x)), norm, torch.randn(2, 3, 4, 4)
        )
        before = norm.running_mean.clone()  # type: ignore[union-attr]
        with pytest.raises(RuntimeError, match="stop"):
            out.sum().backward()
        assert (norm.momentum, int(norm.num_batches_tracked)) == (momentum, number)  # type: ignore[arg-type]
        assert torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


def test_a_backbone_that_cannot_is_refused_before_training() -> None:
    words = ["--tasks", "cls", "--backbone", "timm", "--backbone.model", "mobilenetv2_100"]
    message = "^backbone 'timm': Timm cannot compute activations again; leave activation checkpoint"
    with pytest.raises(ConfigError, match=message):
        build(parse([*words, "--checkpoint-activations"]))
    assert not build(parse(words)).model.backbone._again
