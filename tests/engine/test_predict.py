"""Predictions for picture files: what is written, whatever the batches and the threads."""

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import mtlkit
from mtlkit import predict as predict_module
from mtlkit.cli import main
from mtlkit.predict import find_pictures, predict_files

SIZES = [(90, 50), (33, 70), (64, 64), (20, 24), (51, 40), (64, 32), (70, 70)]
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = [
        "--tasks", "seg,cls,bbox,colourise", "--views", "own", "--backbone", "segnet",
        "--backbone.width", "4", "--image-size", "32", "--batch-size", "8", "--max-steps", "6",
        "--lr", "1e-2", "--data.train", "16", "--data.val", "4", "--data.test", "4",
        "--workers", "0", "--output", str(folder),
    ]  # fmt: skip
    assert main(["train", *options]) == 0
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"p{number}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "labels.csv").write_text("not,a,picture\n")
    return folder


def predict(run: Path, pictures: Path, output: Path, *options: str) -> dict[str, Any]:
    """The numbers of each picture, and its masks and images."""
    words = ["predict", str(run), str(pictures), "--output", str(output), *options]
    assert main(words) == 1  # for the one that is broken
    found: dict[str, Any] = {f.stem: json.loads(f.read_text()) for f in output.glob("*.json")}
    for file in output.glob("*.png"):
        with Image.open(file) as image:
            found[file.name] = np.asarray(image)
    return found


def test_answers_do_not_depend_on_the_batch_size(run: Path, pictures: Path, tmp_path: Path) -> None:
    alone = predict(run, pictures, tmp_path / "1", "--batch-size", "1")
    assert len(alone) == len(SIZES) * 4  # numbers, mask, colours, overlay
    for size in ("3", "16"):
        together = predict(run, pictures, tmp_path / size, "--batch-size", size)
        assert set(together) == set(alone)
        for number in range(len(SIZES)):
            one, other = alone[f"p{number}"], together[f"p{number}"]
            assert other["cls"]["index"] == one["cls"]["index"]
            assert other["cls"]["probability"] == pytest.approx(one["cls"]["probability"], rel=1e-4)
            assert other["bbox"]["box"] == pytest.approx(one["bbox"]["box"], abs=0.02)
            mask, colours = f"p{number}.seg.png", f"p{number}.colourise.png"
            assert (together[mask] == alone[mask]).mean() > 0.999
            assert np.abs(together[colours].astype(int) - alone[colours]).max() <= 1


def test_answers_are_those_of_the_model_alone(run: Path, pictures: Path, tmp_path: Path) -> None:
    written = predict(run, pictures, tmp_path, "--batch-size", "4")
    model = mtlkit.load(run)
    for number in range(len(SIZES)):
        with Image.open(pictures / f"p{number}.png") as image:
            answer = model.predict(image)
        assert written[f"p{number}"]["bbox"]["box"] == pytest.approx(
            answer["bbox"]["box"], abs=0.02
        )
        same = written[f"p{number}.seg.png"] == answer["seg"]["mask"].numpy()
        assert same.mean() > 0.999


def test_bf16_moves_boxes_by_less_than_two_percent_and_few_pixels_change_their_class(
    run: Path, pictures: Path, tmp_path: Path
) -> None:
    exact = predict(run, pictures, tmp_path / "no")
    half = predict(run, pictures, tmp_path / "bf16", "--precision", "bf16")
    boxes = [[found[f"p{n}"]["bbox"]["box"] for n in range(len(SIZES))] for found in (exact, half)]
    scale = np.array([[width, height, width, height] for width, height in SIZES])
    error = np.abs(np.array(boxes[0]) - np.array(boxes[1])) / scale
    assert 0 < error.max() < 0.02
    for n in range(len(SIZES)):
        sure = [found[f"p{n}"]["cls"]["probability"] for found in (exact, half)]
        assert sure[1] == pytest.approx(sure[0], abs=0.02)
    same = [exact[f"p{n}.seg.png"] == half[f"p{n}.seg.png"] for n in range(len(SIZES))]
    assert np.concatenate([s.ravel() for s in same]).mean() > 0.97


@pytest.mark.parametrize("channels_last", ["true", "false"])
def test_the_memory_order_changes_nothing(
    run: Path, pictures: Path, tmp_path: Path, channels_last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    inputs = mtlkit.Model.inputs

    def noting(self: mtlkit.Model, images: torch.Tensor, *rest: Any) -> list[torch.Tensor]:
        seen.append(images.is_contiguous(memory_format=torch.channels_last))
        weights = [w for w in self.parameters() if w.dim() == 4 and w.shape[1] > 1]
        seen.append(all(w.is_contiguous(memory_format=torch.channels_last) for w in weights))
        return inputs(self, images, *rest)

    monkeypatch.setattr(mtlkit.Model, "inputs", noting)
    found = predict(run, pictures, tmp_path, "--channels-last", channels_last)
    assert set(seen) == {channels_last == "true"}
    assert len(found) == len(SIZES) * 4


def test_a_compiled_network_sees_batches_of_one_size(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def compiled(model: mtlkit.Model) -> Any:
        return lambda *inputs: (sizes.append(len(inputs[0])), model(*inputs))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    plain = predict(run, pictures, tmp_path / "plain", "--batch-size", "3")
    found = predict(run, pictures, tmp_path / "compiled", "--batch-size", "3", "--compile")
    assert sizes == [3, 3, 3]
    assert set(found) == set(plain)


def test_every_file_that_cannot_be_read_is_named_and_leaves_no_answer(
    run: Path, pictures: Path, tmp_path: Path, capsys: Output
) -> None:
    cut = (pictures / "p0.png").read_bytes()[:60]
    (tmp_path / "cut.png").write_bytes(cut)
    (tmp_path / "empty.jpg").touch()
    files = [
        tmp_path / "cut.png",
        pictures / "p0.png",
        tmp_path / "none.jpg",
        tmp_path / "empty.jpg",
    ]
    out = tmp_path / "out"
    assert main(["predict", str(run), *map(str, files), "--output", str(out)]) == 1
    err = capsys.readouterr().err
    named = [line for line in err.splitlines() if line.startswith("mtlkit predict: cannot read")]
    names = ("cut.png", "none.jpg", "empty.jpg")
    assert all(name in line for name, line in zip(names, named, strict=True))
    assert {file.name.partition(".")[0] for file in out.iterdir()} == {"p0"}


def test_when_no_file_can_be_read_nothing_is_predicted(run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert main(["predict", str(run), str(tmp_path), "--output", str(out)]) == 1
    assert not any(out.iterdir())


def test_a_folder_stands_for_the_pictures_in_it(tmp_path: Path) -> None:
    names = ["b.JPG", "a.png", ".hidden.png", "labels.csv", "c.tiff", "a.txt"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d.png").touch()
    named = tmp_path / "named.raw"
    found = find_pictures([named, tmp_path])
    assert found == [named, *(tmp_path / name for name in ("a.png", "b.JPG", "c.tiff"))]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "has no picture"),
        (lambda folder: [(folder / n).touch() for n in ("a.png", "a.jpg")], "are called 'a'"),
    ],
)
def test_a_folder_that_cannot_be_predicted_is_one_line(
    run: Path, tmp_path: Path, capsys: Output, make: Any, message: str
) -> None:
    make(tmp_path)
    assert main(["predict", str(run), str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_fp16_is_refused_on_the_cpu_as_in_training(
    run: Path, pictures: Path, tmp_path: Path, capsys: Output
) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU here, which knows fp16")
    words = ["predict", str(run), str(pictures), "--output", str(tmp_path / "out")]
    assert main([*words, "--precision", "fp16"]) == 2
    assert "--precision fp16 needs a GPU; on the CPU use bf16 or no" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_copy_per_task_and_batch_leaves_the_device(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mtlkit.load(run)
    copied = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: (copied.append(self.shape), cpu(self))[1])
    model.raw(torch.zeros(5, 3, 32, 32, dtype=torch.uint8))
    assert [shape[0] for shape in copied] == [5] * len(model.tasks)


def test_three_batches_are_in_memory_at_most(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is read, one in the network, one that is written."""
    lock, held, most = threading.Lock(), 0, 0
    read, write = predict_module._read, predict_module._write

    def reading(*given: Any) -> Any:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return read(*given)

    def writing(*given: Any) -> None:
        nonlocal held
        time.sleep(0.01)
        write(*given)
        with lock:
            held -= 1

    monkeypatch.setattr(predict_module, "_read", reading)
    monkeypatch.setattr(predict_module, "_write", writing)
    for number in range(12):
        (tmp_path / f"{number}.png").symlink_to(pictures / "p3.png")
    model = mtlkit.load(run)
    accelerator = Accelerator(cpu=True)
    out = tmp_path / "out"
    assert predict_files(model, [tmp_path], out, accelerator, batch_size=2) == 0
    assert 2 < most <= 6
    assert len(list(out.glob("*.json"))) == 12
    assert predict_files(model, [], out, accelerator, batch_size=2) == 0


def test_answers_that_cannot_be_written_end_the_prediction_with_one_line(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def full(file: Path, image: torch.Tensor) -> None:
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(predict_module, "save_image", full)
    assert main(["predict", str(run), str(pictures), "--output", str(tmp_path)]) == 2
    assert re.search(r"cannot write .*png: No space left on device", capsys.readouterr().err)
