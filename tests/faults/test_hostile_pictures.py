"""Odd files among the pictures, and odd names where answers go, do no harm to a prediction."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest
import torch
from hostile_values import listing, small_model
from PIL import Image
from safetensors.torch import load_file, save_file

from mtlkit import picture, plots, predict
from mtlkit.cli import main

Output = pytest.CaptureFixture[str]
NAMES = {"a.json", "a.overlay.png", "a.seg.png", "a.edge.png"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "in" / "a.png"
    file.parent.mkdir()
    Image.new("RGB", (40, 30), "red").save(file)
    return file


def predicted(run: Path, output: Path, *files: Path) -> int:
    return main(["predict", str(run), *map(str, files), "--output", str(output)])


def bomb(file: Path, side: int) -> None:
    """A PNG that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_odd_files_are_named_and_left_out(
    run: Path, good: Path, tmp_path: Path, capsys: Output
) -> None:
    odd = {name: good.parent / name for name in ("pipe", "empty", "large", "huge", "gone", "ps")}
    os.mkfifo(odd["pipe"])
    odd["empty"].touch()
    bomb(odd["large"], 10_000)
    bomb(odd["huge"], 2**30)
    odd["ps"].write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    files = [*odd.values(), Path("/dev/zero"), good]
    assert predicted(run, tmp_path / "out", *files) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(odd) + 1
    told = dict(zip([*odd, "zero"], lines, strict=True))
    for name in ("pipe", "zero"):
        assert told[name].endswith(f"{name}: it is no regular file")
    assert "10000x10000 pixels; 89478485 are the most" in told["large"]
    assert "decompression bomb" in told["huge"]
    for name in ("empty", "ps"):
        assert "cannot identify image file" in told[name]
    assert set(listing(tmp_path / "out")) == NAMES


def test_names_of_files_do_not_steer_the_terminal(
    run: Path, good: Path, tmp_path: Path, capsys: Output
) -> None:
    file = good.parent / "\x1b[31m\nred.png"
    file.touch()
    assert predicted(run, tmp_path / "out", file, good) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "\\x1b[31m red.png" in line


def test_links_and_pipes_where_answers_go_are_replaced_and_not_followed(
    run: Path, good: Path, tmp_path: Path
) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    out.mkdir()
    victim.write_text("mine")
    (out / "a.json").symlink_to(victim)
    (out / "a.json.new").symlink_to(victim)
    os.link(victim, out / "a.overlay.png")
    os.mkfifo(out / "a.seg.png")
    assert predicted(run, out, good) == 0
    assert victim.read_text() == "mine"
    assert set(listing(out)) == NAMES
    assert all(file.is_file() and not file.is_symlink() for file in out.iterdir())


def test_a_picture_is_never_overwritten_by_an_answer(
    run: Path, good: Path, tmp_path: Path, capsys: Output
) -> None:
    other = good.parent / "a.seg.png"
    shutil.copy(good, other)
    before = listing(tmp_path)
    assert predicted(run, good.parent, good, other) == 2
    assert f"the picture {other} would be overwritten by an answer" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(good.parent)
    assert predicted(run, tmp_path / "link", good, other) == 2
    (tmp_path / "link").unlink()
    assert listing(tmp_path) == before
    assert predicted(run, good.parent, good) == 0  # beside the picture is fine


def test_a_network_of_no_numbers_is_told_for_each_picture(
    run: Path, good: Path, tmp_path: Path, capsys: Output
) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "model" / "model.safetensors"
    state = load_file(file)
    state["heads.cls.predict.bias"][0] = torch.nan
    save_file(state, file)
    assert predicted(tmp_path / "run", tmp_path / "out", good) == 1
    assert capsys.readouterr().err == (
        f"mtlkit predict: {good}: the network's numbers for cls are not finite\n"
    )
    assert not list((tmp_path / "out").iterdir())


def test_a_batch_of_large_pictures_is_smaller(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "LARGEST", 2500)
    files = [good, good, good.parent / "gone", good, good, good]  # 1200 pixels each
    assert [len(batch) for batch in predict._batches(files, 16)] == [3, 2, 1]
    assert [len(batch) for batch in predict._batches(files, 1)] == [1] * 6
    monkeypatch.setattr(picture, "LARGEST", 1000)
    assert predict._count_pixels(good) == 0


def test_a_pictures_name_is_no_formula(tmp_path: Path) -> None:
    columns = {"input": [torch.zeros(3, 8, 8, dtype=torch.uint8)]}
    plots._grid(columns, ["$\\frac{$ \x1b"]).savefig(tmp_path / "gallery.png")
