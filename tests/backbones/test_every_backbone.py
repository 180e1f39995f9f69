"""What holds for every backbone, whatever it is made of."""

import copy
import socket
from typing import Any, NoReturn

import pytest
import torch
from backbone_cases import CASES, Case, features, images, what_a_head_reads
from torch import nn

from mtlkit import Backbone, Features
from mtlkit.testing import check_backbone

every_backbone = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
every_option = pytest.mark.parametrize(
    "case", list({str((case.build, case.options)): case for case in CASES.values()}.values())
)


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@every_option
def test_it_passes_every_check_with_other_options_too(case: Case) -> None:
    check_backbone(case.build, **case.options)


@every_backbone
def test_dense_is_declared_only_by_what_decodes_for_some_task(case: Case) -> None:
    backbone = case()
    assert (backbone.spec.dense is not None) == (backbone.decodes and bool(backbone.dense_tasks))


@every_backbone
def test_sizes_that_do_not_fit_are_refused_with_sizes_that_do(case: Case) -> None:
    backbone = case()
    m = backbone.multiple
    message = f"use a height of {2 * m} or {3 * m} and a width of {m} or {2 * m}"
    with pytest.raises(ValueError, match=message):
        backbone.encode(torch.zeros(1, backbone.in_channels, 2 * m + 1, 2 * m - 1))


@every_backbone
def test_every_parameter_gets_a_gradient(case: Case) -> None:
    backbone = case()
    with torch.no_grad():
        for p in backbone.parameters():  # timm's residual branches start at exactly zero
            p.add_(torch.randn(p.shape) * 0.02)
    _backward(backbone, features(backbone, images(backbone)))
    without = [
        name
        for name, p in backbone.named_parameters()
        if p.grad is None or (p.ndim > 1 and not p.grad.any())
    ]
    assert without == []


@every_backbone
@pytest.mark.usefixtures("_no_network")
def test_without_pretrained_nothing_is_loaded(case: Case) -> None:
    backbone = case()
    before = copy.deepcopy(backbone.state_dict())
    assert backbone.initialise() == []
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", ["segnet", "vgg16", "mtan", "resnet18", "convnext"])
def test_the_constructor_never_touches_the_network(name: str) -> None:
    case = CASES[name]
    options = {k: v for k, v in case.options.items() if k != "width"}
    backbone = case.build(case.tasks, case.dense_tasks, 3, **options, pretrained=True)
    assert backbone.mean == (0.485, 0.456, 0.406)
    assert backbone.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("name", ["segnet", "vgg16", "mtan"])
def test_untrained_vgg_encoders_want_images_about_minus_one_to_one(name: str) -> None:
    backbone = CASES[name]()
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("name", ["segnet", "mtan", "mtan decoder"])
def test_decoding_runs_under_deterministic_algorithms_with_the_same_result(name: str) -> None:
    backbone = CASES[name]().eval()
    x = images(backbone)
    expected = features(backbone, x)["seg"].dense
    torch.use_deterministic_algorithms(True)
    try:
        found = features(backbone, x)["seg"].dense
        assert found is not None
        found.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["segnet", "mtan"])
def test_activations_neither_vanish_nor_explode_at_the_start(name: str) -> None:
    backbone = CASES[name]()
    for feature in features(backbone, images(backbone)).values():
        for tensor in (*feature.levels, what_a_head_reads(feature)):
            assert 0.05 < tensor.std() < 5


@pytest.mark.parametrize("name", ["segnet", "vgg16", "mtan"])
def test_width_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="width must be at least 1, but got 0"):
        CASES[name].build(("a",), (), 3, width=0)


def _backward(backbone: nn.Module, found: dict[str, Features]) -> None:
    assert isinstance(backbone, Backbone)
    generator = torch.Generator().manual_seed(2)
    read = [what_a_head_reads(feature).float() for feature in found.values()]
    total = sum((r * torch.randn(r.shape, generator=generator)).sum() for r in read)
    assert isinstance(total, torch.Tensor)
    total.backward()
