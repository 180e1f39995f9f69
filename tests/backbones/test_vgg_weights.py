"""VGG-16's weights, from files as timm and torchvision name them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torchvision
from mtlkit_backbones import _weights
from mtlkit_backbones.mtan import MTAN
from mtlkit_backbones.segnet import SegNet
from mtlkit_backbones.vgg16 import VGG16
from safetensors.torch import save_file
from torch import Tensor

from mtlkit import DataError

NAMERS: dict[str, Callable[[str], Any]] = {
    "timm": timm.create_model,
    "torchvision": lambda name: getattr(torchvision.models, name)(),
}
every_network = pytest.mark.parametrize("network", [SegNet, VGG16, MTAN])


def random_file(
    path: Path, library: str, name: str, width: int = 8
) -> tuple[Path, dict[str, Tensor]]:
    """A file with the library's own names, ``width`` instead of 64 channels, random values."""
    torch.manual_seed(5)
    with torch.device("meta"):
        real = NAMERS[library](name).state_dict()
    tensors = {}
    for key, tensor in real.items():
        shape = [n * width // 64 if n > 3 else n for n in tensor.shape]
        small = shape if key.startswith("features.") else [1] * len(shape)
        tensors[key] = (
            torch.rand(small) if tensor.is_floating_point() else torch.tensor(7, dtype=tensor.dtype)
        )
    save_file(tensors, path)
    return path, tensors


def conv_indices(tensors: dict[str, Tensor]) -> list[int]:
    return [int(k.split(".")[1]) for k, v in tensors.items() if k[0] == "f" and v.ndim == 4]


@every_network
@pytest.mark.parametrize("library", NAMERS)
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_local_file_is_loaded_exactly(
    tmp_path: Path, network: Any, library: str, name: str, norm: str
) -> None:
    path, tensors = random_file(tmp_path / "vgg.safetensors", library, name)
    backbone = network(("a",), ("a",), 3, width=8, norm=norm, pretrained=path)
    lines = backbone.initialise()
    assert lines[0] == f"encoder: 13 of 13 convolutions from {path}"
    both = name == "vgg16_bn" and norm == "batch"
    for layer, index in zip(backbone.encoder.layers(), conv_indices(tensors), strict=True):
        assert torch.equal(layer[0].weight, tensors[f"features.{index}.weight"])
        assert torch.equal(layer[0].bias, tensors[f"features.{index}.bias"])
        for key, value in layer[1].state_dict().items() if both else ():
            assert torch.equal(value, tensors[f"features.{index + 1}.{key}"])
    notes = " ".join(lines)
    assert ("the file has no batch norm" in notes) == (name == "vgg16" and norm == "batch")
    assert ("skipped the file's batch norm" in notes) == (name == "vgg16_bn" and norm == "none")
    rest = "head.fc, pre_logits.fc1, pre_logits.fc2"
    rest = rest if library == "timm" else "classifier.0, classifier.3, classifier.6"
    assert lines[-1] == f"skipped {rest}: not part of the encoder"


@pytest.mark.parametrize("library", NAMERS)
def test_a_network_with_vggs_own_width_takes_a_file_of_the_real_size(
    tmp_path: Path, library: str
) -> None:
    path, tensors = random_file(tmp_path / "vgg.safetensors", library, "vgg16_bn", width=64)
    backbone = SegNet(("a",), (), 3, pretrained=path)
    backbone.initialise()
    convs = [layer[0].weight for layer in backbone.encoder.layers()]
    assert convs[-1].shape == (512, 512, 3, 3)
    for conv, index in zip(convs, conv_indices(tensors), strict=True):
        assert torch.equal(conv, tensors[f"features.{index}.weight"])  # type: ignore[arg-type]


@every_network
def test_the_first_convolution_is_skipped_for_other_input_channels(
    tmp_path: Path, network: Any
) -> None:
    path, tensors = random_file(tmp_path / "vgg.safetensors", "timm", "vgg16_bn")
    backbone = network(("a",), ("a",), 1, width=8, pretrained=path)
    before = {k: v.clone() for k, v in backbone.encoder.layers()[0].state_dict().items()}
    lines = backbone.initialise()
    assert lines[0].startswith("encoder: 12 of 13 convolutions")
    assert lines[1] == (
        "skipped convolution 1 and its batch norm: [8, 3, 3, 3] in the file, [8, 1, 3, 3] here"
    )
    first, *rest = backbone.encoder.layers()
    assert all(torch.equal(before[k], v) for k, v in first.state_dict().items())
    for layer, index in zip(rest, conv_indices(tensors)[1:], strict=True):
        assert torch.equal(layer[0].weight, tensors[f"features.{index}.weight"])


def test_a_checkpoint_of_a_training_script_is_unwrapped(tmp_path: Path) -> None:
    _, tensors = random_file(tmp_path / "vgg.safetensors", "torchvision", "vgg16")
    wrapped = {"state_dict": {f"module.{k}": v for k, v in tensors.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "vgg.pth")
    backbone = VGG16(("a",), (), 3, width=8, norm="none", pretrained=tmp_path / "vgg.pth")
    assert backbone.initialise()[0].startswith("encoder: 13 of 13")
    assert torch.equal(backbone.encoder.layers()[0][0].weight, tensors["features.0.weight"])  # type: ignore[arg-type]


def test_convolutions_without_biases_get_zero_biases(tmp_path: Path) -> None:
    path, tensors = random_file(tmp_path / "vgg.safetensors", "timm", "vgg16_bn")
    biases = [f"features.{index}.bias" for index in conv_indices(tensors)]
    save_file({k: v for k, v in tensors.items() if k not in biases}, path)
    backbone = VGG16(("a",), (), 3, width=8, pretrained=path)
    assert backbone.initialise()[0].startswith("encoder: 13 of 13")
    assert not any(layer[0].bias.any() for layer in backbone.encoder.layers())  # type: ignore[operator]


def test_nothing_that_fits_is_an_error(tmp_path: Path) -> None:
    path, _ = random_file(tmp_path / "vgg.safetensors", "timm", "vgg16")
    backbone = SegNet(("a",), (), 3, width=4, pretrained=path)
    with pytest.raises(
        DataError, match=r"nothing in .*vgg.safetensors fits this encoder: .*\[8, 3"
    ):
        backbone.initialise()


def test_another_network_is_an_error(tmp_path: Path) -> None:
    path, tensors = random_file(tmp_path / "vgg.safetensors", "timm", "vgg19")
    backbone = SegNet(("a",), (), 3, width=8, pretrained=path)
    with pytest.raises(DataError, match=r"has 16 convolutions .* but VGG-16 has 13"):
        backbone.initialise()
    save_file({f"x.{k}": v for k, v in tensors.items()}, path)
    with pytest.raises(DataError, match=r"has 0 convolutions .* timm's or torchvision's"):
        backbone.initialise()


def test_a_missing_file_is_an_error_when_a_run_starts_and_not_before(tmp_path: Path) -> None:
    backbone = SegNet(("a",), (), 3, width=2, pretrained=tmp_path / "none.pth")
    assert backbone.mean == (0.485, 0.456, 0.406)
    with pytest.raises(DataError, match=r"no file of weights at .*none.pth; give the path"):
        backbone.initialise()


@pytest.mark.parametrize("name", ["bad.safetensors", "bad.pth"])
def test_an_unreadable_file_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no weights at all")
    backbone = VGG16(("a",), (), 3, width=2, pretrained=tmp_path / name)
    with pytest.raises(DataError, match=r"cannot read weights from .*bad.*tensors"):
        backbone.initialise()


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(__file__).with_name("sprung"),))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"features.0.weight": Trap()}, tmp_path / "trap.pth")
    backbone = VGG16(("a",), (), 3, width=2, pretrained=tmp_path / "trap.pth")
    with pytest.raises(DataError, match="nothing but tensors"):
        backbone.initialise()
    assert not Path(__file__).with_name("sprung").exists()


def test_a_file_without_tensors_is_an_error(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    backbone = VGG16(("a",), (), 3, width=2, pretrained=tmp_path / "list.pth")
    with pytest.raises(DataError, match="holds no tensors by name"):
        backbone.initialise()


@every_network
def test_imagenet_weights_are_refused_for_another_width(network: Any) -> None:
    with pytest.raises(ValueError, match="have width 64, but width is 32; use width 64 or"):
        network(("a",), (), 3, width=32, pretrained=True)


class Zoo:
    """Stands in for timm's download: keeps the name asked for, gives the tensors it was made of."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.asked: list[str] = []

    def __call__(self, name: str, *, pretrained: bool) -> "Zoo":
        assert pretrained
        self.asked.append(name)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        return self.tensors


@pytest.mark.parametrize(("norm", "name"), [("batch", "vgg16_bn"), ("none", "vgg16")])
def test_pretrained_asks_timm_for_the_weights_of_the_same_norm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: Any, name: str
) -> None:
    zoo = Zoo(random_file(tmp_path / "vgg.safetensors", "timm", name, width=64)[1])
    monkeypatch.setattr(timm, "create_model", zoo)
    backbone = VGG16(("a",), (), 3, norm=norm, pretrained=True)
    lines = backbone.initialise()
    assert zoo.asked == [name]
    assert lines[0] == f"encoder: 13 of 13 convolutions from {name}"
    assert torch.equal(backbone.encoder.layers()[0][0].weight, zoo.tensors["features.0.weight"])  # type: ignore[arg-type]


def test_a_failed_download_is_an_error_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("name not\nknown")

    backbone = VGG16(("a",), (), 3, pretrained=True)
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(DataError) as error:
        backbone.initialise()
    assert str(error.value) == (
        "weights of 'vgg16_bn' could not be downloaded (OSError: name not known); "
        "give the path of a local file instead, or pretrained false"
    )


def test_weights_that_were_damaged_on_their_way_from_the_hub_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub's cache names each file of weights by its SHA-256."""
    whole = tmp_path / hashlib.sha256(b"weights").hexdigest()
    whole.write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to(whole)
    net = SimpleNamespace(pretrained_cfg={"hf_hub_id": "timm/vgg16@abc"})
    asked = []

    def cached(repository: str, name: str, *, revision: str | None) -> str | None:
        asked.append((repository, revision))
        return str(tmp_path / name) if name == "model.safetensors" else None

    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: net)
    monkeypatch.setattr(_weights, "try_to_load_from_cache", cached)
    assert _weights.create_pretrained("vgg16") is net
    assert asked == [("timm/vgg16", "abc")] * 2
    whole.write_bytes(b"Weights")
    with pytest.raises(DataError, match=r"was damaged on its way from the Hub: remove it"):
        _weights.create_pretrained("vgg16")
    assert timm.models._builder._CHECK_HASH  # of what timm itself fetches
