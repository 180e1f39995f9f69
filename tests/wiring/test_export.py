"""Exported files hold what the chosen tasks need, no more, and do what the network does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from saved import SIX, save
from torch import nn
from torch.nn import functional as F

from mtlkit import export as exporting
from mtlkit import tracing
from mtlkit.agreement import _difference
from mtlkit.build import load_model
from mtlkit.cli import main
from mtlkit.errors import ConfigError
from mtlkit.export import export_model
from mtlkit.exported import load_exported
from mtlkit.tracing import average_pool

Output = pytest.CaptureFixture[str]

UNET = {"seg": {"head": "unet"}, "cls": {}, "colourise": {}}
CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
VIT = {"depth": 4, "embed_dim": 24, "num_heads": 2, "out_indices": [0, 1, 2, 3]}
SWIN = {
    "img_size": 64,
    "window_size": 2,
    "embed_dim": 12,
    "depths": [2, 1, 1, 1],
    "num_heads": [1, 2, 2, 2],
}
NETWORKS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "segnet": ({"name": "segnet", "width": 4}, SIX, "shared"),
    "segnet-views": ({"name": "segnet", "width": 4}, "cls,denoise", "own"),
    "vgg16-unet": ({"name": "vgg16", "width": 4}, UNET, "shared"),
    "mtan": ({"name": "mtan", "width": 4}, "seg,cls,edge", "shared"),
    "mtan-decoder": (
        {"name": "mtan", "width": 4, "attention": "encoder-decoder"},
        "seg,cls",
        "shared",
    ),
    "vit": ({"name": "timm", "model": "vit_tiny_patch16_224", "options": VIT}, "seg", "own"),
    "vit-of-one-size": (
        {
            "name": "timm",
            "model": "vit_tiny_patch16_224",
            "options": {**VIT, "img_size": 64, "dynamic_img_size": False},
        },
        "cls",
        "own",
    ),
    "convnext": ({"name": "timm", "model": "convnext_atto", "options": CONVNEXT}, "cls", "own"),
    "swin": (
        {"name": "timm", "model": "swin_tiny_patch4_window7_224", "options": SWIN},
        "cls",
        "own",
    ),
}


FOLLOW = {"vit", "vit-of-one-size", "mtan"}  # in tests of their own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model folder of each network, made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            backbone, tasks, views = NETWORKS[name]
            made[name] = tmp_path_factory.mktemp("models") / name
            save(made[name], backbone, tasks, views=views)
        return made[name]

    return get


def pictures(number: int, height: int = 64, width: int = 64) -> torch.Tensor:
    random = torch.Generator().manual_seed(number)
    return torch.randint(256, (number, 3, height, width), generator=random, dtype=torch.uint8)


def numbers_in(file: Path) -> int:
    """Floating-point numbers in an ONNX file."""
    graph = onnx.load(file).graph
    kept = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    return int(sum(np.prod(t.dims) for t in kept))


def agrees(file: Path, folder: Path, given: torch.Tensor) -> None:
    """Without the exporter's own check: the file against the whole model."""
    expected = load_model(folder, tuple(given.shape[-2:])).raw(given)
    found = load_exported(file).raw(given)
    for id, values in found.items():
        assert float((values - expected[id]).abs().max()) < 1e-4, id


@pytest.mark.parametrize("name", sorted({*NETWORKS} - FOLLOW))
def test_every_network_predicts_the_same_from_a_file(
    name: str, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    report = export_model(folder(name), tmp_path / "all.onnx")
    assert set(report.differences) == set(load_model(folder(name)).tasks)
    assert all(d.most < 1e-4 for d in report.differences.values())
    assert report.parameters == report.of_parameters
    agrees(tmp_path / "all.onnx", folder(name), pictures(2))


@pytest.mark.parametrize(
    ("name", "task"),
    [("segnet", "cls"), ("vgg16-unet", "cls"), ("mtan", "seg")],
)
def test_a_file_of_one_task_is_without_what_the_others_need(
    name: str, task: str, folder: Callable[[str], Path], tmp_path: Path
) -> None:
    whole, file = load_model(folder(name)), tmp_path / "one.onnx"
    report = export_model(folder(name), file, tasks=[task])
    others = {id(p) for other in {*whole.tasks} - {task} for p in whole.own_parameters(other)}
    kept = sum(
        parameter.numel()
        for key, parameter in whole.named_parameters()
        if id(parameter) not in others
        and not (task == "cls" and key.startswith("backbone.decoder"))
    )
    assert report.parameters == kept < report.of_parameters
    assert 0.8 * kept < numbers_in(file) < 1.1 * kept  # batch norm goes into convolutions
    assert 4 * numbers_in(file) < report.bytes == file.stat().st_size
    agrees(file, folder(name), pictures(2))


def test_a_task_left_out_still_alters_what_all_were_trained_to_see(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Colourisation lets all see brightness alone: red and its grey must look the same."""
    report = export_model(folder("vgg16-unet"), tmp_path / "cls.onnx", tasks=["cls"])
    assert set(report.differences) == {"cls"}
    red = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    red[:, 0, 16:48] = 255
    grey = torch.full_like(red, 0)
    grey[:, :, 16:48] = 127  # of the same L, 53
    exported = load_exported(tmp_path / "cls.onnx")
    as_red, as_grey, black = (exported.raw(p)["cls"] for p in (red, grey, torch.zeros_like(red)))
    assert float((as_red - as_grey).abs().max()) < 0.05 * float((as_red - black).abs().max())


@pytest.mark.parametrize(("name", "tasks"), [("segnet", ["seg", "bbox"]), ("vit", ["seg"])])
def test_a_dynamic_file_takes_any_size_and_number(
    name: str, tasks: list[str], folder: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "any.onnx"
    report = export_model(folder(name), file, tasks=tasks, dynamic=True)
    assert report.sizes == [(64, 64), (96, 64)]
    for given in (pictures(1, 96, 64), pictures(3, 160, 224)):
        agrees(file, folder(name), given)
    image = onnx.load(file).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in image] == ["batch", 3, "height", "width"]
    about = json.loads(onnx.load(file).metadata_props[0].value)
    assert about["input"]["sides"] == "any multiple of 32 from 64 on"


def test_a_network_of_one_size_is_refused_as_dynamic(
    folder: Callable[[str], Path], tmp_path: Path, capsys: Output
) -> None:
    words = ["export", str(folder("vit-of-one-size")), "--output", str(tmp_path / "x.onnx")]
    assert main([*words, "--dynamic"]) == 2
    assert "--dynamic is not for this network: timm's vit" in capsys.readouterr().err


def test_a_network_that_cannot_be_traced_is_one_line(
    folder: Callable[[str], Path], tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide(self: tracing.Graph, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"cls": image if image.sum() > 3 else image + 1}

    monkeypatch.setattr(tracing.Graph, "forward", decide)
    words = ["export", str(folder("segnet")), "--tasks", "cls", "--dynamic"]
    assert main([*words, "--output", str(tmp_path / "x.onnx")]) == 1
    err = capsys.readouterr().err
    assert "error: this network cannot be exported as onnx: Could not guard on data" in err
    assert err.endswith("; without --dynamic it may be possible\n")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_another_image_size_can_be_chosen(
    folder: Callable[[str], Path], tmp_path: Path, capsys: Output
) -> None:
    words = ["export", str(folder("segnet")), "--tasks", "cls,bbox", "--image-size", "96x160"]
    assert main([*words, "--output", str(tmp_path / "deep" / "x.onnx")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{tmp_path}/deep/x.onnx: ")
    assert out[0].endswith(" of the network's 646,691 parameters")
    assert out[1].endswith("4 random pictures of 96 x 160 px, at most by")
    assert [line.split()[0] for line in out[2:]] == ["cls", "bbox"]
    agrees(tmp_path / "deep" / "x.onnx", folder("segnet"), pictures(1, 96, 160))
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "x.onnx"]


def test_a_pt2_file_gives_the_very_numbers_of_the_network(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "x.pt2"
    report = export_model(folder("vgg16-unet"), file, tasks=["seg", "cls"], dynamic=True)
    assert all(d.most == 0 for d in report.differences.values())
    extra = {"mtlkit": ""}
    program = torch.export.load(file, extra_files=extra)
    assert set(json.loads(extra["mtlkit"])["tasks"]) == {"seg", "cls"}
    assert sum(p.numel() for p in program.parameters()) == report.parameters
    given = pictures(1, 128, 96)
    expected = load_model(folder("vgg16-unet"), (128, 96)).raw(given)
    with torch.no_grad():
        found = program.module()(given)
    assert all(torch.equal(values, expected[id]) for id, values in found.items())


def test_a_file_says_what_it_takes_and_gives(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """What a program without mtlkit has to know."""
    export_model(folder("segnet"), tmp_path / "x.onnx", tasks=["bbox", "cls"], batch_size=2)
    model = onnx.load(tmp_path / "x.onnx")
    saved = json.loads((folder("segnet") / "config.json").read_text())
    about = json.loads({p.key: p.value for p in model.metadata_props}["mtlkit"])
    assert about["tasks"] == {id: saved["tasks"][id] for id in ("cls", "bbox")}
    assert {key: about[key] for key in saved} == saved | {"tasks": about["tasks"]}
    assert about["input"]["mean"] == about["input"]["std"] == [0.5]  # it sees brightness
    assert about["input"]["batch_size"] == 2
    assert about["input"]["sides"] == [64, 64]
    assert about["outputs"]["cls"]["classes"] == saved["data"]["targets"]["cls"]["classes"]
    assert "fractions of the picture's width" in about["outputs"]["bbox"]["meaning"]
    assert [o.name for o in model.graph.output] == ["cls", "bbox"]
    image = model.graph.input[0]
    assert image.name == about["input"]["name"] == "image"
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [2, 3, 64, 64]


def test_a_task_may_be_called_like_an_operation(tmp_path: Path) -> None:
    tasks = {"relu": {"name": "cls"}, "linear": {"name": "cls"}}
    folder = save(tmp_path / "model", {"name": "vgg16", "width": 2}, tasks)
    export_model(folder, tmp_path / "x.onnx")
    agrees(tmp_path / "x.onnx", folder, pictures(1))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (7, 12)])
@pytest.mark.parametrize("grid", [1, 2, 3, 4, 6])
def test_pooling_by_products_is_adaptive_pooling(size: tuple[int, int], grid: int) -> None:
    images = torch.randn(2, 3, *size)
    expected = F.adaptive_avg_pool2d(images, (grid, 4))
    torch.testing.assert_close(average_pool(images, (grid, 4)), expected)


def test_a_file_that_does_something_else_is_not_kept(
    folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    file = tmp_path / "x.onnx"
    file.write_text("the old one")
    forward = tracing.Graph.forward

    def darker(self: tracing.Graph, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return forward(self, image // 2)

    monkeypatch.setattr(tracing.Graph, "forward", darker)
    assert main(["export", str(folder("segnet")), "--output", str(file), "--tasks", "cls"]) == 1
    err = capsys.readouterr().err
    assert "the file would not do what the network does: 'cls' differs by " in err
    assert err.endswith("is allowed; nothing was written\n")
    assert file.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("found", "nudged", "accepted"),
    [
        ([2 + 1.9e-4, 1, 1], [2, 1, 1], True),
        ([2 + 2.1e-4, 1, 1], [2, 1, 1], False),
        ([2 + 1e-2, 1, 1], [2 + 2e-2, 1, 1], True),  # where PyTorch itself jumps further
        ([2 + 3e-2, 1, 1], [2 + 2e-2, 1, 1], False),
        ([2 + 1e-2, 1.01, 1.01], [2 + 2e-2, 1, 1], False),  # one jump is no reason for many
        ([float("nan"), 1, 1], [2, 1, 1], False),
    ],
)
def test_a_difference_is_measured_by_the_largest_value_and_by_pytorchs_own_jumps(
    found: list[float], nudged: list[float], accepted: bool
) -> None:
    values = [torch.tensor(v, dtype=torch.float64) for v in (found, [2, 1, 1], nudged)]
    difference = _difference([tuple(values)])
    assert difference.accepted is accepted
    assert difference.largest == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "seg,klass"], "no task 'klass' in this run It has: seg, cls, bbox"),
        (["--tasks", "seq"], "no task 'seq' in this run; did you mean 'seg'? It has: seg, "),
        (["--output", "x.bin"], "x.bin must end in .onnx or .pt2"),
        (["--output", "x.pt2", "--format", "onnx"], "x.pt2 must end in .onnx"),
        (["--image-size", "100"], "use a height of 96 or 128 and a width of 96 or 128"),
        (["--image-size", "32", "--dynamic"], "multiples of 32 from 64 on, which 32 x 32 are not"),
        (["--image-size", "big"], "image size must be like 128 or 96x128"),
        (["--batch-size", "0"], "expects a whole number above 0, but got '0'"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    folder: Callable[[str], Path], tmp_path: Path, capsys: Output, words: list[str], message: str
) -> None:
    output = [] if "--output" in words else ["--output", str(tmp_path / "x.onnx")]
    assert main(["export", str(folder("segnet")), *output, *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_line(
    folder: Callable[[str], Path], tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "x.onnx"
    assert main(["export", str(folder("segnet")), "--output", str(output)]) == 2
    assert capsys.readouterr().err.startswith(f"mtlkit export: error: cannot write {output}: ")


def test_a_task_called_like_the_input_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", {"name": "vgg16", "width": 2}, {"image": {"name": "cls"}})
    with pytest.raises(ConfigError, match="a task called 'image' cannot be exported"):
        export_model(folder, tmp_path / "x.onnx")


def test_a_network_that_does_not_come_apart_is_refused(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = exporting.Model.state_dict

    def mixed(self: nn.Module, *given: Any, **named: Any) -> dict[str, Any]:
        """All tasks' attention in one tensor."""
        return {f"of{len(self.tasks)}.{key}": v for key, v in state(self, *given, **named).items()}

    whole = load_model(folder("mtan"))
    config = json.loads((folder("mtan") / "config.json").read_text())
    monkeypatch.setattr(exporting.Model, "state_dict", mixed)
    with pytest.raises(ConfigError, match=r"does not come apart by task: .*; export all"):
        exporting.take_part(whole, config, ["cls"])


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
    missing: str,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    assert main(["export", str(folder("segnet")), "--output", str(tmp_path / "x.onnx")]) == 2
    err = capsys.readouterr().err
    assert f"ONNX files need {missing} " in err
    assert err.endswith('pip install "mtlkit[onnx]"\n')
