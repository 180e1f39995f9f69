"""The data of a run: images as large as it needs, cached if it is told so, the same in any case."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dataset_files import make_folder, save, scene, write_coco
from mtlkit_datasets.folder import FolderSamples
from torch.utils.data import Subset

from mtlkit import api, config
from mtlkit.cache import CachedSamples
from mtlkit.cli import main
from mtlkit.session import Run

BOX = (40, 30, 150, 100)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Large photographs with all labels."""
    folder = make_folder(tmp_path / "data", number=12, masks=False)
    for number, file in enumerate(sorted((folder / "images").iterdir())):
        file.unlink()
        picture = scene(128 + number, 192, BOX)
        save(file.with_suffix(".jpg"), picture, quality=95)
        save(folder / "masks" / file.name, (picture[..., 0] > 130).astype("uint8"))
    left, top, right, bottom = BOX
    edges = [left, top, right - left, bottom - top]
    write_coco(folder, {file.name: [edges] for file in (folder / "images").iterdir()})
    return folder


def words(root: Path, *more: str) -> list[str]:
    return [
        "--data", "folder", "--data.root", str(root), "--tasks", "seg,cls,bbox", "--epochs", "2",
        "--backbone", "segnet", "--backbone.width", "4", "--image-size", "32", "--batch-size", "4",
        "--workers", "0", *more,
    ]  # fmt: skip


def assembled(root: Path, *more: str) -> Run:
    return api.assemble(config.parse(words(root, *more)))


def sizes(run: Run, *, train: bool) -> set[tuple[int, ...]]:
    samples: Any = run.loader("train", train=train).dataset.samples  # type: ignore[attr-defined]
    return {tuple(samples[i]["image"].shape[1:]) for i in range(len(samples))}


def test_images_are_decoded_as_large_as_the_augmentation_needs(root: Path) -> None:
    whole = sizes(assembled(root, "--decode", "full"), train=True)
    assert whole == sizes(assembled(root, "--augment", "strong", "--image-size", "64"), train=True)
    assert all(side >= 128 for side, _ in whole)
    light = sizes(assembled(root), train=True)  # 32 / 0.69 = 46.2
    assert light == {(-(-side // 2), 96) for side, _ in whole}
    plain = sizes(assembled(root), train=False)
    assert plain == {(-(-side // 4), 48) for side, _ in whole}


def test_a_reader_that_cannot_reduce_is_used_as_it_is(root: Path) -> None:
    run = assembled(root)
    samples: Any = run.dataset.split("train")
    run.dataset.split = lambda name, /: Subset(samples, range(8))  # type: ignore
    assert min(sizes(run, train=True)) >= (128, 192)


def batches(run: Run) -> list[dict[str, Any]]:
    """All that a run reads: an epoch of training and an evaluation, by ids."""
    run.cache_samples()
    return [*run.loader("train", train=True), *run.loader("val")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MTLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "samples"


@pytest.mark.parametrize("more", [(), ("--overfit", "4"), ("--workers", "1")])
def test_a_run_reads_the_same_with_a_cache(root: Path, home: Path, more: tuple[str, ...]) -> None:
    plain = batches(assembled(root, *more))
    assert not home.exists()
    for kind in ("ram", "disk", "disk"):
        kept = batches(assembled(root, "--cache", kind, *more))
        for ours, theirs in zip(kept, plain, strict=True):
            assert ours["id"] == theirs["id"]
            assert torch.equal(ours["image"], theirs["image"])
            assert torch.equal(ours["targets"]["seg"], theirs["targets"]["seg"])
            assert torch.equal(ours["targets"]["bbox"], theirs["targets"]["bbox"])
        assert home.exists() == (kind == "disk")
    assert len(list(home.iterdir())) == (1 if "--overfit" in more else 2)


def test_a_cache_is_read_and_not_the_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = assembled(root, "--cache", "ram")
    run.cache_samples()
    first = next(iter(run.loader("train", train=True)))
    monkeypatch.setattr(FolderSamples, "__getitem__", None)
    again = next(iter(run.loader("train", train=True)))
    assert torch.equal(first["image"], again["image"])
    assert isinstance(run.samples("val", "none"), CachedSamples)
    assert not isinstance(run.samples("test", "none"), CachedSamples)  # read once


def test_too_little_room_leaves_no_run_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mtlkit.cache.free_memory", lambda: 1000)
    output = tmp_path / "run"
    assert main(["train", *words(root, "--output", str(output), "--cache", "ram")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "decoded samples of train take about" in said
    assert not output.exists()


def test_evaluations_share_their_worker_processes(root: Path) -> None:
    run = assembled(root, "--workers", "1")
    first = run.evaluate("val")
    workers = run._loaders["val", False]._iterator._workers  # type: ignore[union-attr]
    assert run.evaluate("val") == first
    assert run._loaders["val", False]._iterator._workers is workers  # type: ignore[union-attr]


def test_an_overfitted_run_is_evaluated_on_its_few_images_at_any_size(root: Path) -> None:
    run = assembled(root, "--overfit", "3", "--workers", "0")
    sizes = [[len(batch["id"]) for batch in run.loader("val", full_size=f)] for f in (False, True)]
    assert sizes[0] == sizes[1]
    assert sum(sizes[0]) == 3


@pytest.mark.slow
def test_processes_of_a_machine_share_one_cache(root: Path, tmp_path: Path) -> None:
    """What the second finds is the first one's file: nothing is written under its own name."""
    found = {}
    for cache in ("none", "ram"):
        output = tmp_path / cache
        line = words(root, "--output", str(output), "--cache", cache, "--max-steps", "2")
        command = [sys.executable, "-m", "mtlkit", "train", "--num-processes", "2", *line]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        found[cache] = json.loads((output / "results.json").read_text())["test"]
    assert found["none"] == pytest.approx(found["ram"], nan_ok=True)


def test_the_processes_that_did_not_write_it_read_the_cache_of_the_one_that_did(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = assembled(root, "--cache", "ram"), assembled(root, "--cache", "ram")
    told: list[Any] = []

    def speak(said: list[Any]) -> list[Any]:
        told.extend(said)
        return said

    monkeypatch.setattr("mtlkit.session.gather_object", speak)
    first.cache_samples()
    monkeypatch.setattr("mtlkit.session.gather_object", lambda said: [told.pop(0), *said])
    monkeypatch.setattr(
        type(second.accelerator), "is_local_main_process", property(lambda self: False)
    )
    second.cache_samples()
    for split, augment in (("train", "light"), ("val", "none")):
        ours, theirs = (run.samples(split, augment) for run in (first, second))  # type: ignore[arg-type]
        assert ours.path == theirs.path  # type: ignore[attr-defined]
        assert torch.equal(ours[0]["image"], theirs[0]["image"])
