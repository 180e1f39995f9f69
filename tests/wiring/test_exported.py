"""An exported file answers as its run does, and a stranger's file does no harm."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from saved import save

import mtlkit
from mtlkit import tracing
from mtlkit.cli import main
from mtlkit.errors import CheckpointError, ConfigError, RunError
from mtlkit.export import export_model
from mtlkit.exported import Exported, load_exported

Output = pytest.CaptureFixture[str]
SIZES = [(90, 50), (33, 70), (64, 64), (20, 24), (51, 40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone = {"name": "segnet", "width": 2}
    return save(tmp_path_factory.mktemp("models") / "m", backbone, "seg,cls,bbox,colourise")


@pytest.fixture(scope="module")
def file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "all.onnx"
    export_model(folder, path)
    return path


@pytest.fixture(scope="module")
def pairs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classification of two pictures at a time."""
    path = tmp_path_factory.mktemp("files") / "pairs.onnx"
    export_model(folder, path, tasks=["cls"], batch_size=2)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size).save(folder / f"p{number}.png")
    return folder


def test_predict_writes_the_same_files_as_with_the_run(
    folder: Path, file: Path, pictures: Path, tmp_path: Path
) -> None:
    for path, name in ((folder, "run"), (file, "file")):
        words = ["predict", str(path), str(pictures), "--output", str(tmp_path / name)]
        assert main([*words, "--batch-size", "3"]) == 0
    names = sorted(f.name for f in (tmp_path / "run").iterdir())
    assert sorted(f.name for f in (tmp_path / "file").iterdir()) == names
    assert len(names) == 4 * len(SIZES)
    for name in names:
        run, exported = tmp_path / "run" / name, tmp_path / "file" / name
        if name.endswith(".json"):
            numbers, expected = (json.loads(path.read_text()) for path in (exported, run))
            assert numbers["cls"]["class"] == expected["cls"]["class"]
            assert numbers["bbox"]["box"] == pytest.approx(expected["bbox"]["box"], abs=0.02)
        else:
            with Image.open(run) as one, Image.open(exported) as other:
                difference = np.abs(np.asarray(one).astype(int) - np.asarray(other))
            assert difference.mean() < 0.1


def test_in_python_it_is_loaded_like_a_run(folder: Path, file: Path) -> None:
    exported, model = mtlkit.load(str(file)), mtlkit.load(folder)
    picture = Image.new("RGB", (90, 40), "teal")
    found, expected = exported.predict(picture), model.predict(picture)
    assert list(exported.tasks) == list(model.tasks)
    assert exported.image_size == model.image_size
    assert found["bbox"]["box"] == pytest.approx(expected["bbox"]["box"], abs=0.02)
    assert found["cls"]["probability"] == pytest.approx(expected["cls"]["probability"], rel=1e-4)
    assert found["seg"]["mask"].shape == (40, 90)
    assert len(exported.predict_batch([picture, picture.resize((20, 20))])) == 2


def test_a_file_of_one_batch_size_is_given_full_batches(folder: Path, pairs: Path) -> None:
    given = torch.randint(256, (5, 3, 64, 64), dtype=torch.uint8)
    exported = load_exported(pairs)
    sizes = []
    run = exported.session.run
    session = type("Session", (), {})()
    session.run = lambda names, feed: (sizes.append(len(feed["image"])), run(names, feed))[1]
    exported.session = session
    found, expected = exported.raw(given)["cls"], mtlkit.load(folder).raw(given)["cls"]
    assert sizes == [2, 2, 2]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_pictures_of_another_size_are_one_line(pairs: Path) -> None:
    with pytest.raises(RunError, match=r"cannot run .*pairs\.onnx: "):
        load_exported(pairs).raw(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("option", [["--compile"], ["--precision", "bf16"]])
def test_a_file_runs_as_it_was_exported(
    pairs: Path, pictures: Path, tmp_path: Path, capsys: Output, option: list[str]
) -> None:
    words = ["predict", str(pairs), str(pictures), "--output", str(tmp_path / "out"), *option]
    assert main(words) == 2
    assert "runs as it was exported, without --compile and --prec" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_pt2_file_is_never_loaded(tmp_path: Path, pictures: Path, capsys: Output) -> None:
    file = tmp_path / "x.pt2"
    file.write_bytes(b"anything")
    assert main(["predict", str(file), str(pictures), "--output", str(tmp_path / "out")]) == 2
    assert "would run whatever code is in it; export as ONNX" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="would run whatever code"):
        mtlkit.load(file)


def test_a_folder_may_be_called_like_a_file(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run.onnx")
    assert isinstance(mtlkit.load(tmp_path / "run.onnx"), mtlkit.Model)


def with_about(file: Path, change: Any, output: Path) -> Path:
    """The file with other metadata: text, or what ``change`` makes of the old."""
    model = onnx.load(file)
    entry = model.metadata_props[0]
    if callable(change):
        about = json.loads(entry.value)
        change(about)
        change = json.dumps(about)
    entry.value = change
    onnx.save(model, output)
    return output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "entry of .* is no JSON"),
        ("[]", "entry of .* is no mapping"),
        ("{}", "cannot rebuild the tasks of .*: tasks is missing"),
        (
            lambda about: about["tasks"]["cls"].update(name="gone"),
            "unknown task .gone",
        ),
        (lambda about: about["tasks"]["cls"].update(options={"x": 1}), "cannot rebuild the tasks"),
        (lambda about: about.update(tasks=[]), "cannot rebuild the tasks"),
        (lambda about: about.update(tasks=[], plugins=[1]), "cannot rebuild the tasks"),
        (lambda about: about["tasks"].update(other=about["tasks"]["cls"]), "no output for other"),
    ],
)
def test_metadata_that_makes_no_sense_is_one_line(
    pairs: Path, tmp_path: Path, change: Any, message: str
) -> None:
    path = with_about(pairs, change, tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=message):
        load_exported(path)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["image"], ["out"])
    shape = (TensorProto.FLOAT, [1])
    graph = helper.make_graph([node], "g", [value("image", *shape)], [value("out", *shape)])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=r"x\.onnx was not written by mtlkit export"):
        load_exported(tmp_path / "x.onnx")


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08"])
def test_what_is_no_onnx_file_is_one_line(
    tmp_path: Path, pictures: Path, capsys: Output, content: bytes
) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    words = ["predict", str(tmp_path / "x.onnx"), str(pictures), "--output", str(tmp_path / "out")]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "x.onnx" in err
    assert err.count("\n") == 1
    with pytest.raises(CheckpointError, match=r"there is no file .*gone\.onnx"):
        load_exported(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("../secret", "points outside the directory"),
        ("{folder}/secret", "should be a relative path"),
        ("link", "is a symbolic link"),
        ("inside", None),
    ],
)
def test_data_outside_of_the_files_folder_is_never_read(
    pairs: Path, tmp_path: Path, place: str, reason: str | None
) -> None:
    model = onnx.load(pairs)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    (tmp_path / "in").mkdir()
    for file in (tmp_path / "secret", tmp_path / "in" / "inside"):
        file.write_bytes(tensor.raw_data)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place.format(folder=tmp_path)
    onnx.save(model, tmp_path / "in" / "x.onnx")
    if reason is None:
        assert load_exported(tmp_path / "in" / "x.onnx").tasks
        return
    with pytest.raises(
        CheckpointError, match=rf"cannot read .*x\.onnx as an ONNX file: .*{reason}"
    ):
        load_exported(tmp_path / "in" / "x.onnx")


def test_weights_that_one_file_cannot_hold_lie_beside_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "LARGEST", 0)
    report = export_model(folder, tmp_path / "x.onnx", tasks=["cls"])
    files = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert set(files) == {"x.onnx", "x.onnx.data"}
    assert report.bytes == sum(files.values())
    assert isinstance(load_exported(tmp_path / "x.onnx"), Exported)
    (tmp_path / "x.onnx.data").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*x\.onnx as an ONNX file: "):
        load_exported(tmp_path / "x.onnx")
