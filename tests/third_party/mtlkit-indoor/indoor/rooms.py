"""Photographs of rooms with depth and masks."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from mtlkit import DataError, Dataset, DatasetSpec, Sample, TargetSpec

SPLITS = ("train", "val", "test")


class Rooms(Dataset):
    """``SPLIT/ID.png`` photographs; beside each, if known, ``ID.depth.png`` and ``ID.mask.png``.

    Depth is in millimetres, 16 bits, 0 where it was not measured. A mask has 0 for the room and 1
    for an object.

    Args:
        root: the folder that holds ``train``, ``val`` and ``test``.

    Raises:
        DataError: a split is missing, or has no photograph.
    """

    image_size = 64

    def __init__(self, *, root: Path) -> None:
        self.files = {split: _photographs(root / split) for split in SPLITS}
        labels = {
            "depth": TargetSpec("map", channels=1, labelled=self._count("depth")),
            "seg": TargetSpec("mask", classes=("room", "object"), labelled=self._count("mask")),
        }
        self.spec = DatasetSpec(labels, {name: len(files) for name, files in self.files.items()})

    def _count(self, label: str) -> dict[str, int]:
        return {
            split: sum(_beside(file, label).is_file() for file in files)
            for split, files in self.files.items()
        }

    def split(self, name: str, /) -> "Photographs":
        return Photographs(self.files[name])


class Photographs:
    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Sample:
        file = self.files[index]
        pixels = torch.from_numpy(_read(file, "RGB").copy()).permute(2, 0, 1)
        sample: Sample = {"image": tv_tensors.Image(pixels), "id": file.stem}
        depth, mask = _beside(file, "depth"), _beside(file, "mask")
        if depth.is_file():
            metres = _read(depth, "I").astype(np.float32) / 1000
            sample["depth"] = tv_tensors.Mask(torch.from_numpy(metres)[None])
        if mask.is_file():
            sample["seg"] = tv_tensors.Mask(torch.from_numpy(_read(mask, "L").copy()))
        return sample


def _photographs(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.glob("*.png") if "." not in file.stem)
    if not found:
        raise DataError(
            f"there is no photograph ID.png in {folder}; --data.root must hold {SPLITS}"
        )
    return found


def _beside(file: Path, label: str) -> Path:
    return file.with_suffix(f".{label}.png")


def _read(file: Path, mode: str) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert(mode))
