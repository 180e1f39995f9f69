"""Cache: decoded samples in one file, which every process of a machine maps into its memory.

A file is one record for each sample (a header in JSON and the bytes of its tensors), the table of
the records' places, and an end with a checksum, by which a damaged file is known.
"""

import inspect
import json
import os
import pickle
import shutil
import struct
import tempfile
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from tqdm import tqdm

from mtlkit.data import Sample, Samples
from mtlkit.errors import ConfigError

Kind = Literal["ram", "disk"]
FORMAT = b"mtlkit01"
DEPENDS_ON = ("mtlkit", "pillow", "torchvision")
"""Packages whose version may change what is decoded."""
ALIGNED = 16
"""Bytes to whose multiples everything in a file is moved."""
LOOKED_AT = 16
"""Samples from which the size of a file is told before it is written."""
LARGEST_SHARE = 0.8
"""Of the free memory or disk that a cache may take."""
DAY = 24 * 60 * 60.0
_END = struct.Struct("<8sQQQ")  # format, number of records, where the table begins, checksum
_LENGTH = struct.Struct("<Q")
_TYPES: dict[str, Callable[..., Tensor]] = {
    "Image": tv_tensors.Image,
    "Mask": tv_tensors.Mask,
    "BoundingBoxes": tv_tensors.BoundingBoxes,
    "Tensor": lambda value: value,
}


class CachedSamples:
    """Samples in a file; each process maps it when it first reads one.

    Args:
        path: of an intact file.
        file: the same, kept open as long as this object lives: one in memory goes with it.
    """

    def __init__(self, path: str, file: BinaryIO | None = None, /) -> None:
        self.path = path
        if file is not None:
            weakref.finalize(self, file.close)
        self._map()

    def _map(self) -> None:
        # copy-on-write: torch wants writable memory, and nobody's mistake may reach the file
        self._bytes = np.asarray(np.memmap(self.path, dtype=np.uint8, mode="c"))
        _, number, table, _ = _END.unpack(self._bytes[-_END.size :].tobytes())
        self._places = self._bytes[table : table + 8 * (number + 1)].view("<u8")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._map()

    def __len__(self) -> int:
        return len(self._places) - 1

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return unpack(self._bytes[int(self._places[index]) : int(self._places[index + 1])])


def pack(sample: Sample, names: Sequence[str]) -> bytes:
    """The image, id and named labels of a sample in one record."""
    parts: list[bytes] = []
    notes: dict[str, Any] = {}
    place = 0
    for name in ("image", *names):
        if name not in sample:
            continue
        value: Tensor = sample[name]
        plain = value.as_subclass(Tensor)
        last = plain.ndim == 3 and plain.permute(1, 2, 0).is_contiguous()  # channels, in memory
        array = (plain.permute(1, 2, 0) if last else plain.contiguous()).numpy()
        notes[name] = [type(value).__name__, str(array.dtype), array.shape, last, place]
        if isinstance(value, tv_tensors.BoundingBoxes):
            notes[name].append(value.canvas_size)
        parts.append(_padded(array.tobytes()))
        place += len(parts[-1])
    header = json.dumps({"id": sample["id"], "tensors": notes}).encode()
    return b"".join((_padded(_LENGTH.pack(len(header)) + header), *parts))


def _padded(data: bytes) -> bytes:
    return data.ljust(_aligned(len(data)), b"\0")


def unpack(record: NDArray[np.uint8]) -> Sample:
    """The sample of a record, whose tensors share its memory."""
    (length,) = _LENGTH.unpack(record[: _LENGTH.size].tobytes())
    header = json.loads(record[_LENGTH.size : _LENGTH.size + length].tobytes())
    start = _aligned(_LENGTH.size + length)
    sample: Sample = {"id": header["id"]}
    for name, (kind, dtype, shape, last, place, *canvas) in header["tensors"].items():
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        array = record[start + place : start + place + size].view(dtype).reshape(shape)
        tensor = torch.from_numpy(array)
        tensor = tensor.permute(2, 0, 1) if last else tensor
        more = {"format": "XYXY", "canvas_size": tuple(canvas[0])} if canvas else {}
        sample[name] = _TYPES[kind](tensor, **more)
    return sample


def _aligned(number: int) -> int:
    return -(-number // ALIGNED) * ALIGNED


class _Records(Dataset[bytes]):
    """Packs samples where they are read: in worker processes."""

    def __init__(self, samples: Samples, names: Sequence[str]) -> None:
        self.samples, self.names = samples, names

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> bytes:
        return pack(self.samples[index], self.names)


def _as_it_is(record: Any) -> Any:
    return record


def write(
    file: BinaryIO, samples: Samples, names: Sequence[str], *, what: str, workers: int
) -> None:
    """Write a cache file of all samples."""
    loader = DataLoader(
        _Records(samples, names), batch_size=None, num_workers=workers, collate_fn=_as_it_is,
        generator=torch.Generator(),
    )  # fmt: skip
    places, checksum = [0], 0
    for record in tqdm(loader, desc=f"caching {what}", unit="image", leave=False, disable=None):
        checksum = zlib.crc32(record, checksum)
        file.write(record)
        places.append(places[-1] + len(record))
    table = np.array(places, dtype="<u8").tobytes()
    file.write(table)
    checksum = zlib.crc32(table, checksum)
    file.write(_END.pack(FORMAT, len(samples), places[-1], checksum))
    file.flush()


def intact(path: Path, number: int) -> bool:
    """Whether this is a whole cache file of so many samples, whose bytes are as written."""
    try:
        with path.open("rb") as file:
            left = file.seek(0, os.SEEK_END) - _END.size
            file.seek(max(left, 0))
            form, found, table, expected = _END.unpack(file.read())
            if (form, found, table + 8 * (number + 1)) != (FORMAT, number, left):
                return False
            file.seek(0)
            checksum = 0
            while left:
                block = file.read(min(left, 2**24))
                checksum, left = zlib.crc32(block, checksum), left - len(block)
    except (OSError, struct.error):
        return False
    return bool(checksum == expected)


def cached(
    samples: Samples, names: Sequence[str], kind: Kind, *, what: str, workers: int
) -> CachedSamples:
    """The same samples, decoded once.

    Args:
        samples: of one split.
        names: of the labels that are wanted.
        kind: ``ram`` keeps them in memory, as long as the process lives; ``disk`` in a file that
            another run finds, if it wants the same samples and their files have not changed.
        what: how to call them in messages.
        workers: processes that decode them.

    Raises:
        ConfigError: there is not enough room.
    """
    if kind == "ram":
        _check_room(samples, names, free_memory(), what, "memory", "disk")
        file, path = _memory_file()
        try:
            write(file, samples, names, what=what, workers=workers)
        except BaseException:
            file.close()
            raise
        return CachedSamples(path, file)
    home = cache_folder()
    path_on_disk = home / f"{fingerprint(samples, names)}.samples"
    if not intact(path_on_disk, len(samples)):
        with _writable(home):
            _check_room(samples, names, shutil.disk_usage(home).free, what, str(home), "ram")
            _write_whole(path_on_disk, samples, names, what=what, workers=workers)
    return CachedSamples(str(path_on_disk))


def _memory_file() -> tuple[BinaryIO, str]:
    """A file in memory, gone with the last process that uses it, and a path that others can open.

    Where the system has no such thing, a temporary file, gone with this process.
    """
    if hasattr(os, "memfd_create"):
        file: Any = os.fdopen(os.memfd_create("mtlkit-cache"), "w+b")
        return file, f"/proc/{os.getpid()}/fd/{file.fileno()}"
    file = tempfile.NamedTemporaryFile(prefix="mtlkit-cache-")  # noqa: SIM115
    return file, file.name


@contextmanager
def _writable(home: Path) -> Iterator[None]:
    """Make a folder; one line for what the system may refuse there."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write the cache to {home}: {error.strerror}; make room, set MTLKIT_CACHE to "
            "another folder, or use --cache none"
        ) from None


def _write_whole(path: Path, *args: Any, **options: Any) -> None:
    """Write a cache file under its name only when it is whole."""
    for left in path.parent.glob("*.part"):  # by a process that was killed
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > DAY:
                left.unlink()
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write(file, *args, **options)
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _check_room(
    samples: Samples, names: Sequence[str], free: int, what: str, where: str, other: str
) -> None:
    """Refuse to fill more than a part of what is free.

    Raises:
        ConfigError: says how much is needed and how much there is.
    """
    few = range(0, len(samples), max(1, len(samples) // LOOKED_AT))
    needed = sum(len(pack(samples[i], names)) for i in few) * len(samples) / max(1, len(few))
    if needed > LARGEST_SHARE * free:
        raise ConfigError(
            f"--cache: the {len(samples)} decoded samples of {what} take about {_gib(needed)}, but "
            f"of {_gib(free)} free in {where} a cache may take {LARGEST_SHARE:.0%}; use --cache "
            f"{other} or --cache none"
        )


def _gib(number: float) -> str:
    return f"{number / 2**30:.3g} GiB"


def free_memory() -> int:
    """Bytes that may still be taken, by the machine and by the container around this process."""
    page = os.sysconf("SC_PAGE_SIZE")
    free = [os.sysconf("SC_PHYS_PAGES") * page]
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # no such group, or "max": no limit
            group = Path("/sys/fs/cgroup")
            free.append(int((group / most).read_text()) - int((group / used).read_text()))
    return max(0, min(free))


def cache_folder() -> Path:
    """Where caches on disk are; it may be emptied at any time when no run uses it."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MTLKIT_CACHE") or Path(home) / "mtlkit") / "samples"


def fingerprint(samples: Samples, names: Sequence[str]) -> str:
    """A word that changes with all that the samples depend on.

    That is the object itself, as it would travel to a worker; size and time of every file whose
    ``Path`` is in it; the source of the classes in it and what lies beside that; and versions.
    """
    found = BytesIO()
    versions = [metadata.version(name) for name in DEPENDS_ON]
    _Fingerprint(found, protocol=4).dump((FORMAT, versions, list(names), samples))
    return blake2b(found.getbuffer(), digest_size=16).hexdigest()


class _Fingerprint(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Path):
            return str(obj), _state(obj)
        if isinstance(obj, type):
            return obj.__module__, obj.__qualname__, _sources(obj)
        return None


def _state(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


@cache
def _sources(cls: type) -> tuple[Any, ...]:
    try:
        home = Path(inspect.getfile(cls)).parent
    except (OSError, TypeError):  # built in
        return ()
    return tuple((file.name, _state(file)) for file in sorted(home.glob("*.py")))
