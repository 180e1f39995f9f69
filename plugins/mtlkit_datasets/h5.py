"""The HDF5 files of the study this project grows from."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from mtlkit import ConfigError, DataError, DataProblem, Dataset, DatasetSpec, Sample, TargetSpec

from ._boxes import Box, box_fault, clipped
from ._images import check_size
from ._samples import as_box, as_image

try:
    import h5py
except ImportError:
    h5py = None

SPLITS = ("train", "val", "test")
LABELS = {"masks": "seg", "bboxes": "bbox", "binary": "cls"}
CHUNK = 64
SLACK, RATIO = 2**26, 5000
"""Bytes that an array may claim without holding them; beyond, claimed bytes for each held."""


class HDF5(Dataset):
    """The study's HDF5 layout: ``{train,val,test}/{images,masks,bboxes,binary}.h5``.

    Of each file the first key is read: images [N, H, W, 3] with values 0 to 255, whole or not;
    masks [N, H, W, 1] of 0 and 1 (``seg``); bboxes [N, 4], left, top, right, bottom in pixels
    (``bbox``); binary [N, 1] of 0 and 1 (``cls``). Only images.h5 has to be there.

    Args:
        root: folder that holds train/, val/ and test/.
        verify: look at every value at the start, so that a wrong one cannot end a run.
        on_bad: ``skip`` leaves out every sample or label that is bad and counts them; what makes a
            whole file useless is an error all the same.

    Raises:
        ConfigError: h5py is not installed.
        DataError: a file is missing, broken or contradicts another.
    """

    def __init__(
        self, *, root: Path, verify: bool = True, on_bad: Literal["raise", "skip"] = "raise"
    ) -> None:
        if h5py is None:
            raise ConfigError('dataset h5 needs h5py; install it with: pip install "mtlkit[h5]"')
        self.root = Path(root)
        problems: list[DataProblem] = []
        self._rows: dict[str, Rows] = {}
        for split in SPLITS:
            files = find_files(self.root, split)
            with Tables(files) as tables:
                number = check_shapes(tables)
                faults = check_values(tables, number if verify else 1)
                if split == "train":
                    self.image_size = int(min(tables["images"].shape[1:3]))
            self._rows[split] = Rows(split, files, number, faults)
            problems += self._rows[split].problems()
        self.spec = DatasetSpec(
            targets={
                target: self._describe(file)
                for file, target in LABELS.items()
                if any(file in rows.files for rows in self._rows.values())
            },
            sizes={split: len(rows.good) for split, rows in self._rows.items()},
        )
        self.set_aside(self.root, problems, on_bad)

    def split(self, name: Literal["train", "val", "test"], /) -> "HDF5Samples":
        """The samples of one split."""
        return HDF5Samples(self._rows[name])

    def _describe(self, file: str) -> TargetSpec:
        labelled = {split: rows.labelled(file) for split, rows in self._rows.items()}
        if file == "masks":
            return TargetSpec("mask", classes=("background", "pet"), labelled=labelled)
        if file == "bboxes":
            return TargetSpec("box", labelled=labelled)
        return TargetSpec("class", classes=("cat", "dog"), labelled=labelled)


Faults = dict[str, dict[int, str]]
"""What is wrong with a row, by file and row."""


@dataclass
class Rows:
    """The rows of one split.

    Args:
        split: its name.
        files: by stem.
        number: of rows in each file.
        faults: the bad ones.
        good: rows whose image is good.
    """

    split: str
    files: dict[str, Path]
    number: int
    faults: Faults
    good: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.good = [row for row in range(self.number) if row not in self.faults["images"]]

    def labelled(self, file: str) -> int:
        """How many samples have a label of this file."""
        if file not in self.files:
            return 0
        return sum(row not in self.faults[file] for row in self.good)

    def problems(self) -> Iterator[DataProblem]:
        """What is bad, and what is left out for it."""
        for file, faults in self.faults.items():
            for row, text in faults.items():
                line = f"{self.files[file]}: row {row}{text}"
                if file == "images":
                    yield DataProblem(line, sample=True)
                else:
                    lost = () if row in self.faults["images"] else (LABELS[file],)
                    yield DataProblem(line, labels=lost)


class Tables:
    """The first dataset of each file of one split, by the file's stem; closed at the end."""

    def __init__(self, files: dict[str, Path], /) -> None:
        self._open: list[Any] = []
        self._tables: dict[str, Any] = {}
        try:
            for name, path in files.items():
                self._tables[name] = self._first(path)
        except DataError:
            self.close()
            raise

    def _first(self, path: Path) -> Any:
        try:
            file = h5py.File(path, "r")
            self._open.append(file)
            first = next(iter(file.values()), None)
        except Exception as error:  # HDF5 raises nearly every kind on broken files
            raise DataError(f"{path}: cannot be read as HDF5 ({error}); replace it") from error
        if not isinstance(first, h5py.Dataset) or not first.shape:
            raise DataError(f"{path}: its first key holds no array; write one array into it")
        return first

    def __getitem__(self, name: str) -> Any:
        return self._tables[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tables

    def items(self) -> list[tuple[str, Any]]:
        """Names and arrays."""
        return list(self._tables.items())

    def path(self, name: str) -> str:
        """Where an array comes from."""
        return str(self._tables[name].file.filename)

    def __enter__(self) -> "Tables":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for file in self._open:
            file.close()


class HDF5Samples:
    """One split of :class:`HDF5`. Files are opened at first use, in each process by itself."""

    def __init__(self, rows: Rows, /) -> None:
        self.rows = rows
        self._tables: tuple[int, Tables] | None = None

    def __len__(self) -> int:
        return len(self.rows.good)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": None}

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        row = self.rows.good[index]
        tables = self._opened()
        values = {
            name: read_rows(tables, name, row, row + 1)[0]
            for name in self.rows.files
            if row not in self.rows.faults[name]
        }
        pixels = to_bytes(values["images"])
        size = pixels.shape[0], pixels.shape[1]
        sample: Sample = {"image": as_image(pixels), "id": f"{self.rows.split}-{row:06d}"}
        if "masks" in values:
            mask = np.asarray(values["masks"], dtype=np.uint8).reshape(size)
            sample["seg"] = tv_tensors.Mask(torch.from_numpy(mask))
        if "bboxes" in values:
            sample["bbox"] = as_box(clipped(to_box(values["bboxes"]), size), size)
        if "binary" in values:
            sample["cls"] = torch.tensor(int(np.asarray(values["binary"]).item()))
        return sample

    def _opened(self) -> Tables:
        if self._tables is None or self._tables[0] != os.getpid():
            self._tables = os.getpid(), Tables(self.rows.files)
        return self._tables[1]


def find_files(root: Path, split: str, /) -> dict[str, Path]:
    """The files of one split, by stem."""
    paths = {name: root / split / f"{name}.h5" for name in ("images", *LABELS)}
    if not paths["images"].is_file():
        raise DataError(
            f"{paths['images']}: missing; --data.root is the folder that holds "
            "{train,val,test}/images.h5"
        )
    return {name: path for name, path in paths.items() if path.is_file()}


def check_shapes(tables: Tables, /) -> int:
    """The number of samples, which all files of a split share."""
    path, shape = tables.path("images"), tables["images"].shape
    if len(shape) != 4 or shape[3] != 3 or not all(shape):
        raise DataError(f"{path}: has shape {list(shape)}; needs [N, H, W, 3]")
    number, height, width, _ = shape
    try:
        check_size(height, width)
    except ValueError as error:
        raise DataError(f"{path}: has pictures of {error}") from error
    fitting = {
        "images": (shape,),
        "masks": ((number, height, width, 1), (number, height, width)),
        "bboxes": ((number, 4),),
        "binary": ((number, 1), (number,)),
    }
    for name, table in tables.items():
        if len(table) != number:
            raise DataError(
                f"{tables.path(name)}: has {len(table)} rows, but images.h5 has {number}; "
                "row i of every file belongs to image i"
            )
        if table.shape not in fitting[name]:
            raise DataError(
                f"{tables.path(name)}: has shape {list(table.shape)}; needs "
                f"{list(fitting[name][0])}"
            )
        if table.dtype.kind not in "buif":
            raise DataError(f"{tables.path(name)}: holds {table.dtype}; needs numbers")
        held = table.id.get_storage_size()
        if table.nbytes > SLACK + RATIO * held:
            raise DataError(
                f"{tables.path(name)}: claims {table.nbytes:,} bytes but holds {held:,}; most of "
                "it was never written"
            )
    return int(number)


def check_values(tables: Tables, number: int, /) -> Faults:
    """What is wrong with values in the first rows of one split's files.

    Raises:
        DataError: all images seem to hold values from 0 to 1.
    """
    _, height, width, _ = tables["images"].shape
    faults: Faults = {name: {} for name, _ in tables.items()}
    highest = 0.0
    for name, found in faults.items():
        for start in range(0, number, CHUNK):
            for row, values in readable(tables, name, start, min(start + CHUNK, number), found):
                if name == "images":
                    low, high = float(values.min()), float(values.max())
                    highest = max(highest, high)
                    if not (low >= 0 and high <= 255):
                        found[row] = f" holds values from {low:g} to {high:g}; needs 0 to 255"
                elif name == "bboxes":
                    if fault := box_fault(to_box(values), (height, width)):
                        found[row] = f": {fault}"
                elif ((values != 0) & (values != 1)).any():
                    found[row] = " holds other values than 0 and 1"
    if tables["images"].dtype.kind == "f" and 0 < highest <= 1:
        raise DataError(
            f"{tables.path('images')}: holds values from 0 to {highest:g}; multiply them by 255"
        )
    return faults


def readable(
    tables: Tables, name: str, start: int, stop: int, faults: dict[int, str], /
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Some rows of a file with their values; those that cannot be read go to ``faults``."""
    try:
        yield from enumerate(read_rows(tables, name, start, stop), start)
    except DataError as error:
        if stop - start == 1:
            faults[start] = f" {str(error).partition(': ')[2]}"
            return
        for row in range(start, stop):
            yield from readable(tables, name, row, row + 1, faults)


def read_rows(tables: Tables, name: str, start: int, stop: int, /) -> NDArray[Any]:
    """The values of some rows.

    Raises:
        DataError: HDF5 cannot read them.
    """
    try:
        values: NDArray[Any] = tables[name][start:stop]
    except Exception as error:  # HDF5 raises nearly every kind on broken files
        raise DataError(f"{tables.path(name)}: cannot be read ({error})") from error
    return values


def to_bytes(pixels: NDArray[Any], /) -> NDArray[np.uint8]:
    """Values from 0 to 255 of any type as uint8, rounded."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels).clip(0, 255).astype(np.uint8)


def to_box(row: NDArray[Any], /) -> Box:
    """One row of bboxes.h5."""
    left, top, right, bottom = (float(edge) for edge in row)
    return left, top, right, bottom
