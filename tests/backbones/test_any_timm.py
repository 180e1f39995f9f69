"""timm's models as backbones."""

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mtlkit_backbones.any_timm import Timm
from safetensors.torch import load_file, save_file

from mtlkit import DataError


def test_features_are_those_of_timms_own_features_only() -> None:
    backbone = Timm(("a",), (), 3, model="resnet18").eval()
    plain = timm.create_model("resnet18", features_only=True).eval()
    plain.load_state_dict(backbone.net.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(backbone.encode(x).levels, plain(x), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("model", "channels", "strides", "multiple"),
    [
        ("resnet18", (64, 64, 128, 256, 512), (2, 4, 8, 16, 32), 32),
        ("mobilenetv2_100", (16, 24, 32, 96, 320), (2, 4, 8, 16, 32), 32),
        ("vit_tiny_patch16_224", (192, 192, 192), (16, 16, 16), 16),
        ("convnext_atto", (40, 80, 160, 320), (4, 8, 16, 32), 32),
    ],
)
def test_the_spec_of_well_known_models(
    model: str, channels: tuple[int, ...], strides: tuple[int, ...], multiple: int
) -> None:
    backbone = Timm(("a",), (), 3, model=model)
    assert (backbone.spec.channels, backbone.spec.strides) == (channels, strides)
    assert (backbone.spec.dense, backbone.multiple) == (None, multiple)


def test_images_are_normalised_as_the_models_weights_expect() -> None:
    assert Timm(("a",), (), 3, model="resnet18").mean == (0.485, 0.456, 0.406)
    assert Timm(("a",), (), 3, model="vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)


def test_options_reach_the_model() -> None:
    backbone = Timm(("a",), (), 3, options={"out_indices": [1, 3], "output_stride": 8})
    assert backbone.spec.strides == (4, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet81"}, "timm has no model 'resnet81'; did you mean 'resnet18'?"),
        ({"model": "zzzzzz"}, "timm has no model 'zzzzzz'; timm.list_models() lists them"),
        ({"model": "hf-hub:timm/resnet18"}, "timm has no model 'hf-hub:timm/resnet18'; "),
        ({"model": "resnet18.foo"}, "timm has no weights 'resnet18.foo'; use one of: resnet18.a1_"),
        (
            {"model": "coatnet_0_224", "pretrained": True},
            "timm has no weights for 'coatnet_0_224'; use pretrained false or a local file",
        ),
        (
            {"options": {"in_chans": 1}},
            "option 'in_chans' of timm's models is set by mtlkit; leave it out of options",
        ),
        (
            {"options": {"drop_out": 1}},
            "timm cannot build 'resnet18' as a backbone with options {'drop_out': 1} (TypeError: ",
        ),
        (
            {"options": {"out_indices": [9]}},
            "timm cannot build 'resnet18' as a backbone with options {'out_indices': [9]} (Index",
        ),
    ],
)
def test_what_timm_cannot_do_is_refused_on_one_line(options: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Timm(("a",), (), 3, **options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_model_for_one_size_says_how_to_get_another() -> None:
    backbone = Timm(("a",), (), 3, model="mixer_s16_224", options={"img_size": 64}).eval()
    with pytest.raises(ValueError, match=r"for images of 64 x 64, but got 96 x 128; .*\[96, 128\]"):
        backbone.encode(torch.zeros(1, 3, 96, 128))
    assert backbone.encode(torch.zeros(1, 3, 64, 64)).levels[-1].shape == (1, 512, 4, 4)


@pytest.mark.parametrize("model", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_local_file_with_timms_names_is_loaded_exactly(
    tmp_path: Path, model: str, suffix: str
) -> None:
    full = timm.create_model(model)
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(full.state_dict(), path)
    backbone = Timm(("a",), (), 3, model=model, pretrained=path).eval()
    lines = backbone.initialise()
    total = len(backbone.net.state_dict())
    assert lines[0] == f"backbone: {total} of {total} tensors from {path}"
    assert len(lines) == 2
    assert lines[1].startswith("skipped, not part of the features: ")
    assert ("fc" if model == "resnet18" else "head") in lines[1]
    plain = timm.create_model(
        model,
        features_only=True,
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": full.state_dict()},
    )
    expected = plain.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in backbone.net.state_dict().items())


@pytest.mark.parametrize("in_channels", [1, 4])
def test_the_first_convolution_adapts_to_the_input_channels_as_timm_does(
    tmp_path: Path, in_channels: int
) -> None:
    full = timm.create_model("resnet18").state_dict()
    save_file(full, tmp_path / "weights.safetensors")
    backbone = Timm(("a",), (), in_channels, pretrained=tmp_path / "weights.safetensors")
    assert f"adapted conv1.weight from 3 to {in_channels} input channels" in backbone.initialise()
    adapted = timm.models.adapt_input_conv(in_channels, full["conv1.weight"])
    assert torch.equal(backbone.net.state_dict()["conv1.weight"], adapted)


def test_tensors_of_another_shape_and_absent_ones_are_told(tmp_path: Path) -> None:
    full = timm.create_model("resnet18").state_dict()
    full["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    full["layer1.1.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    del full["layer2.0.bn1.weight"]
    save_file(full, tmp_path / "weights.safetensors")
    backbone = Timm(("a",), (), 3, pretrained=tmp_path / "weights.safetensors")
    lines = backbone.initialise()
    assert lines[1] == (
        "skipped, of another shape: "
        "layer1.0.conv1.weight ([64, 64, 1, 1] there, [64, 64, 3, 3] here) and 1 more"
    )
    assert lines[2:] == [
        "skipped, not part of the features: fc",
        "not in the file, as initialised: layer2.0.bn1",
    ]


def test_a_file_of_another_network_is_an_error(tmp_path: Path) -> None:
    save_file({"something": torch.zeros(3)}, tmp_path / "weights.safetensors")
    backbone = Timm(("a",), (), 3, pretrained=tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match=r"nothing in .* fits this model: its names must be those"):
        backbone.initialise()


def test_pretrained_takes_over_all_that_timm_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    donors = []

    def download(*args: Any, pretrained: bool, **kwargs: Any) -> torch.nn.Module:
        donor = create(*args, **kwargs)
        donors.extend([donor] if pretrained else [])
        return donor

    monkeypatch.setattr(timm, "create_model", download)
    backbone = Timm(("a",), (), 1, model="resnet18.a1_in1k", pretrained=True)
    assert donors == []
    assert backbone.initialise() == ["timm resnet18.a1_in1k: weights timm/resnet18.a1_in1k"]
    expected = donors[0].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in backbone.net.state_dict().items())


def test_a_failed_download_is_an_error_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("name not\nknown")

    backbone = Timm(("a",), (), 3, pretrained=True)
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        DataError, match=r"'resnet18' could not .* \(OSError: name not known\); give"
    ):
        backbone.initialise()


def test_real_mobilenet_weights_load() -> None:
    root = os.environ.get("MTLKIT_TEST_DATA")
    if not root:
        pytest.skip("MTLKIT_TEST_DATA does not name the folder of test data")
    path = Path(root, "weights", "mobilenetv2_100.imagenet.safetensors")
    backbone = Timm(("a",), (), 3, model="mobilenetv2_100", pretrained=path)
    assert backbone.initialise() == [
        f"backbone: 306 of 306 tensors from {path}",
        "skipped, not part of the features: bn2, classifier, conv_head",
    ]
    file = load_file(path)
    assert all(torch.equal(v, file[k]) for k, v in backbone.net.state_dict().items())
