"""A cache gives back what the reader gave, to every process, or says why it cannot."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from mtlkit import ConfigError, TargetSpec, cache
from mtlkit.cache import CachedSamples, cached, fingerprint
from mtlkit.geometry import Augment
from mtlkit.loader import Batches, Prepared, make_loader

TARGETS = {
    "seg": TargetSpec("mask", ("a", "b")),
    "cls": TargetSpec("class", ("a", "b")),
    "bbox": TargetSpec("box"),
    "depth": TargetSpec("map", channels=2),
    "pose": TargetSpec("vector", channels=3),
}


class Files:
    """Samples of every kind of label, some of them absent, made from a file's text."""

    def __init__(self, file: Path, number: int = 9) -> None:
        self.file, self.number = file, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(int(self.file.read_text()) + index)
        height, width = 24 + index, 31
        pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        sample: dict[str, Any] = {
            "image": tv_tensors.Image(pixels.permute(2, 0, 1)),
            "id": f"sämple {index}",
            "seg": tv_tensors.Mask(pixels[..., 0] % 2),
            "cls": torch.tensor(index % 2),
            "bbox": tv_tensors.BoundingBoxes(
                torch.tensor([[1.5, 2, 20, 22]]), format="XYXY", canvas_size=(height, width)
            ),
            "depth": tv_tensors.Mask(torch.rand((2, height, width), generator=generator)),
            "pose": torch.rand(3, generator=generator),
            "other": torch.zeros(1000),
        }
        absent = ("seg", "cls", "bbox", "depth", "pose", "none")[index % 6]
        return {name: value for name, value in sample.items() if name != absent}


@pytest.fixture
def samples(tmp_path: Path) -> Files:
    (tmp_path / "seed.txt").write_text("7")
    return Files(tmp_path / "seed.txt")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MTLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "samples"


def make(samples: Files, kind: cache.Kind, workers: int = 0) -> CachedSamples:
    return cached(samples, tuple(TARGETS), kind, what="train", workers=workers)


def check_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys() - {"other"}
    for name, value in ours.items():
        assert type(value) is type(theirs[name])
        if isinstance(value, Tensor):
            assert torch.equal(value, theirs[name])
            assert value.dtype == theirs[name].dtype
        else:
            assert value == theirs[name]
    assert ours["image"].stride() == theirs["image"].stride()
    if "bbox" in ours:
        assert ours["bbox"].canvas_size == theirs["bbox"].canvas_size


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_samples_come_back_as_the_reader_gave_them(
    samples: Files, kind: cache.Kind, workers: int
) -> None:
    kept = make(samples, kind, workers)
    assert len(kept) == len(samples)
    for index in range(len(samples)):
        check_same(kept[index], samples[index])
    with pytest.raises(IndexError):
        kept[9]


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("augment", ["none", "light", "strong"])
def test_batches_are_the_same_with_and_without_it(
    samples: Files, kind: cache.Kind, augment: Augment
) -> None:
    loaders = [
        make_loader(
            Prepared(source, TARGETS, (16, 20), augment=augment),
            Batches(9, 4, train=True),
            workers=workers,
            pin_memory=False,
        )
        for source, workers in ((samples, 0), (make(samples, kind), 2))
    ]
    for plain, ours in zip(*loaders, strict=True):
        assert plain["id"] == ours["id"]
        assert torch.equal(plain["image"], ours["image"])
        for name in TARGETS:
            assert torch.equal(plain["targets"][name], ours["targets"][name])
            assert torch.equal(plain["present"][name], ours["present"][name])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_read_the_same_file(samples: Files, method: str) -> None:
    kept = make(samples, "ram")
    assert len(pickle.dumps(kept)) < 500
    loader = DataLoader(
        kept,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=1,
        multiprocessing_context=method,
    )
    for index, theirs in enumerate(loader):
        check_same(theirs, samples[index])


def test_what_a_reader_of_the_cache_alters_is_altered_for_nobody_else(samples: Files) -> None:
    kept = make(samples, "ram")
    kept[0]["image"].zero_()
    check_same(CachedSamples(kept.path)[0], samples[0])


def test_a_cache_in_memory_is_gone_with_the_process(samples: Files) -> None:
    kept = make(samples, "ram")
    path = Path(kept.path)
    assert path.exists()
    del kept
    assert not path.exists()


def test_a_cache_on_disk_is_read_by_the_next_run_and_not_the_samples(
    samples: Files, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(samples, "disk")
    (file,) = home.iterdir()
    monkeypatch.setattr(Files, "__getitem__", None)
    assert make(samples, "disk").path == str(file)


def damaged(data: bytes) -> Iterator[bytes]:
    yield b""
    yield data[:30]
    yield data[:-1]
    yield data[: len(data) // 2]
    middle = len(data) // 2
    yield data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    yield bytes(len(data))
    yield data[8:]


@pytest.mark.parametrize("which", range(7))
def test_a_damaged_cache_on_disk_is_made_anew(samples: Files, home: Path, which: int) -> None:
    whole = Path(make(samples, "disk").path).read_bytes()
    (file,) = home.iterdir()
    file.write_bytes(list(damaged(whole))[which])
    kept = make(samples, "disk")
    check_same(kept[3], samples[3])
    assert file.read_bytes() == whole
    assert list(home.iterdir()) == [file]


def test_another_file_source_label_or_order_is_another_cache(tmp_path: Path) -> None:
    one = Files(tmp_path / "seed.txt")
    one.file.write_text("7")
    first = fingerprint(one, ("seg",))
    assert fingerprint(Files(tmp_path / "seed.txt"), ("seg",)) == first
    assert fingerprint(one, ("seg", "cls")) != first
    assert fingerprint(Files(tmp_path / "seed.txt", 8), ("seg",)) != first
    os.utime(one.file, (1, 1))
    assert fingerprint(one, ("seg",)) != first


def test_a_change_of_the_readers_source_is_another_cache(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\n"
        "from a_reader import Reader\nfrom mtlkit.cache import fingerprint\n"
        "print(fingerprint(Reader(), ()))"
    )

    def found() -> str:
        command = [sys.executable, "-B", "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    (tmp_path / "a_reader.py").write_text("class Reader:\n    pass\n")
    (tmp_path / "helper.py").write_text("")
    first = found()
    assert found() == first
    (tmp_path / "helper.py").write_text("# decode otherwise\n")
    assert found() != first


def test_too_little_memory_or_disk_is_said_with_numbers(
    samples: Files, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "free_memory", lambda: 20_000)
    said = r"9 decoded samples of train take about .* GiB, but of .* free in memory .* --cache disk"
    with pytest.raises(ConfigError, match=said):
        make(samples, "ram")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("", (), {"free": 20_000}))
    with pytest.raises(ConfigError, match="use --cache ram or --cache none"):
        make(samples, "disk")
    assert not list(home.iterdir())


class Full:
    """A file on a disk that becomes full."""

    def __init__(self, *args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")


def test_a_disk_that_becomes_full_is_one_line_and_leaves_nothing(
    samples: Files, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "tqdm", Full)
    with pytest.raises(ConfigError, match=r"cannot write the cache to .*: No space left on device"):
        make(samples, "disk")
    assert not list(home.iterdir())


def test_an_interruption_leaves_no_file(
    samples: Files, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Files, index: int, /) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_check_room", lambda *_: None)
    monkeypatch.setattr(Files, "__getitem__", stop)
    with pytest.raises(KeyboardInterrupt):
        make(samples, "disk")
    assert not list(home.iterdir())


def test_what_a_killed_process_left_is_removed_a_day_later(samples: Files, home: Path) -> None:
    home.mkdir(parents=True)
    for name, age in (("old.1.part", 1), ("new.2.part", None)):
        (home / name).write_bytes(b"x")
        if age:
            os.utime(home / name, (age, age))
    make(samples, "disk")
    assert sorted(file.suffix for file in home.iterdir()) == [".part", ".samples"]
    assert (home / "new.2.part").exists()


def test_a_split_without_samples_is_cached_too(samples: Files) -> None:
    samples.number = 0
    assert len(make(samples, "ram")) == 0


def test_free_memory_is_that_of_the_container_where_it_has_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Path.read_text

    def read(self: Path, *args: Any) -> str:
        limits = {"memory.max": "5000\n", "memory.current": "2000\n"}
        return limits.get(self.name) or whole(self, *args)

    assert cache.free_memory() > 10**6
    monkeypatch.setattr(Path, "read_text", read)
    assert cache.free_memory() == 3000
