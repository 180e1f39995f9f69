"""The HDF5 files of the study this project grows from."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from mtlkit import ConfigError, DataError, Dataset, DatasetSpec, Sample, TargetSpec

from ._boxes import Box, box_fault, clipped
from ._images import refuse
from ._samples import as_box, as_image

try:
    import h5py
except ImportError:
    h5py = None

SPLITS = ("train", "val", "test")
LABELS = {"masks": "seg", "bboxes": "bbox", "binary": "cls"}
CHUNK = 64


class HDF5(Dataset):
    """The study's HDF5 layout: ``{train,val,test}/{images,masks,bboxes,binary}.h5``.

    Of each file the first key is read: images [N, H, W, 3] with values 0 to 255, whole or not;
    masks [N, H, W, 1] of 0 and 1 (``seg``); bboxes [N, 4], left, top, right, bottom in pixels
    (``bbox``); binary [N, 1] of 0 and 1 (``cls``). Only images.h5 has to be there.

    Args:
        root: folder that holds train/, val/ and test/.
        verify: look at every value at the start, so that a wrong one cannot end a run.

    Raises:
        ConfigError: h5py is not installed.
        DataError: a file is missing, broken or contradicts another.
    """

    def __init__(self, *, root: Path, verify: bool = True) -> None:
        if h5py is None:
            raise ConfigError('dataset h5 needs h5py; install it with: pip install "mtlkit[h5]"')
        self.root = Path(root)
        self._files = {split: find_files(self.root, split) for split in SPLITS}
        sizes: dict[str, int] = {}
        for split, files in self._files.items():
            with Tables(files) as tables:
                sizes[split] = check_shapes(tables)
                if split == "train":
                    self.image_size = int(min(tables["images"].shape[1:3]))
                refuse(self.root, check_values(tables) if verify else check_range(tables, 0, 1))
        self.spec = DatasetSpec(
            targets={
                target: self._describe(file, sizes)
                for file, target in LABELS.items()
                if any(file in files for files in self._files.values())
            },
            sizes=sizes,
        )

    def split(self, name: Literal["train", "val", "test"], /) -> "HDF5Samples":
        """The samples of one split."""
        return HDF5Samples(name, self._files[name], self.spec.sizes[name])

    def _describe(self, file: str, sizes: dict[str, int]) -> TargetSpec:
        labelled = {
            split: sizes[split] if file in files else 0 for split, files in self._files.items()
        }
        if file == "masks":
            return TargetSpec("mask", classes=("background", "pet"), labelled=labelled)
        if file == "bboxes":
            return TargetSpec("box", labelled=labelled)
        return TargetSpec("class", classes=("cat", "dog"), labelled=labelled)


class Tables:
    """The first dataset of each file of one split, by the file's stem; closed at the end."""

    def __init__(self, files: dict[str, Path], /) -> None:
        self._open: list[Any] = []
        self._tables: dict[str, Any] = {}
        for name, path in files.items():
            try:
                file = h5py.File(path, "r")
            except OSError as error:
                raise DataError(f"{path}: cannot be read as HDF5 ({error}); replace it") from error
            self._open.append(file)
            first = next(iter(file.values()), None)
            if not isinstance(first, h5py.Dataset):
                raise DataError(f"{path}: its first key holds no array; write one array into it")
            self._tables[name] = first

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
        for file in self._open:
            file.close()


class HDF5Samples:
    """One split of :class:`HDF5`. Files are opened at first use, in each process by itself."""

    def __init__(self, name: str, files: dict[str, Path], number: int, /) -> None:
        self.name = name
        self.files = files
        self.number = number
        self._tables: tuple[int, Tables] | None = None

    def __len__(self) -> int:
        return self.number

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": None}

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < self.number:
            raise IndexError(f"sample {index} of {self.number}")
        tables = self._opened()
        pixels = to_bytes(tables["images"][index])
        sample: Sample = {"image": as_image(pixels), "id": f"{self.name}-{index:06d}"}
        if "masks" in tables:
            mask = np.asarray(tables["masks"][index], dtype=np.uint8).reshape(pixels.shape[:2])
            sample["seg"] = tv_tensors.Mask(torch.from_numpy(mask))
        if "bboxes" in tables:
            size = pixels.shape[0], pixels.shape[1]
            sample["bbox"] = as_box(clipped(to_box(tables["bboxes"][index]), size), size)
        if "binary" in tables:
            sample["cls"] = torch.tensor(int(np.asarray(tables["binary"][index]).item()))
        return sample

    def _opened(self) -> Tables:
        if self._tables is None or self._tables[0] != os.getpid():
            self._tables = os.getpid(), Tables(self.files)
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
    shape = tables["images"].shape
    if len(shape) != 4 or shape[3] != 3 or not all(shape):
        raise DataError(f"{tables.path('images')}: has shape {list(shape)}; needs [N, H, W, 3]")
    number, height, width, _ = shape
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
    return int(number)


def check_values(tables: Tables, /) -> list[str]:
    """What is wrong with values anywhere in one split's files."""
    number, height, width, _ = tables["images"].shape
    problems = []
    if tables["images"].dtype != np.uint8:
        problems += check_range(tables, 0, number)
    for name in ("masks", "binary"):
        if name in tables:
            problems += [
                f"{tables.path(name)}: row {row} holds other values than 0 and 1"
                for start in range(0, number, CHUNK)
                for row in rows_beyond_binary(tables[name][start : start + CHUNK], start)
            ]
    if "bboxes" in tables:
        for row, box in enumerate(tables["bboxes"][:]):
            if fault := box_fault(to_box(box), (height, width)):
                problems.append(f"{tables.path('bboxes')}: row {row}: {fault}")
    return problems


def check_range(tables: Tables, start: int, stop: int, /) -> list[str]:
    """Whether the images of some rows hold 0 to 255, rather than 0 to 1 or anything else."""
    images, path = tables["images"], tables.path("images")
    if images.dtype.kind not in "uif":
        return [f"{path}: holds {images.dtype}; needs numbers from 0 to 255"]
    extremes = [
        (chunk.min(), chunk.max())
        for row in range(start, stop, CHUNK)
        for chunk in [images[row : min(row + CHUNK, stop)]]
    ]
    low, high = float(np.min(extremes)), float(np.max(extremes))
    if not (low >= 0 and high <= 255):
        return [f"{path}: holds values from {low:g} to {high:g}; needs 0 to 255"]
    if images.dtype.kind == "f" and 0 < high <= 1:
        return [f"{path}: holds values from {low:g} to {high:g}; multiply them by 255"]
    return []


def rows_beyond_binary(values: NDArray[Any], start: int, /) -> list[int]:
    """Rows of a part that begins at ``start`` with a value that is neither 0 nor 1."""
    wrong = ((values != 0) & (values != 1)).reshape(len(values), -1).any(axis=1)
    return [start + int(row) for row in np.flatnonzero(wrong)]


def to_bytes(pixels: NDArray[Any], /) -> NDArray[np.uint8]:
    """Values from 0 to 255 of any type as uint8, rounded."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels).clip(0, 255).astype(np.uint8)


def to_box(row: NDArray[Any], /) -> Box:
    """One row of bboxes.h5."""
    left, top, right, bottom = (float(edge) for edge in row)
    return left, top, right, bottom
