"""A person's own pictures: a folder of images, and beside it whatever labels there are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torchvision import tv_tensors

from mtlkit import DataError, Dataset, DatasetSpec, Sample, TargetSpec

from ._boxes import Box, box_fault, clipped
from ._folder_parts import Part, deal, find_parts
from ._images import check_all, check_image, described, read_image, read_mask, refuse
from ._labels import class_index, names_of, read_names
from ._samples import as_box, as_image

IGNORED = 255
Masks = Literal["ids", "binary"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Picture:
    """One image with the labels it has; ``classes`` by target."""

    id: str
    image: Path
    mask: Path | None = None
    box: Box | None = None
    classes: dict[str, int] = field(default_factory=dict)


class Folder(Dataset):
    """Own pictures: ``images/`` and, each of them optional, masks, class labels and boxes.

    ``images/`` holds pictures, also in sub-folders. ``masks/`` holds PNG files called like the
    images, with a class id per pixel, 255 where nothing is labelled (``seg``). ``labels.csv`` has a
    column ``id`` (the image's name), optionally ``split`` (train, val or test), and every other
    column is a class label of that name: names or numbers, an empty cell where it is missing; the
    first is ``cls`` as well unless a column is called so. ``boxes.json`` (COCO) or ``boxes/*.xml``
    (Pascal VOC) hold boxes (``bbox``): of several in one image the largest counts.
    ``<label>_classes.txt`` may name the classes of a label, one a line.

    All this lies in ``root``, or in ``root/train``, ``root/val`` and ``root/test`` for one split
    each. Where nothing says which picture is in which split, their names decide.

    Args:
        root: the folder described above.
        val_share: part of the pictures kept for validation where no split is given, in [0, 1).
        test_share: part of them kept for the test, in [0, 1).
        masks: ``ids`` when masks hold class ids, ``binary`` when 0 is background and every other
            value foreground.
        verify: decode every file at the start, so that a broken one cannot end a run.

    Raises:
        ValueError: a share is outside [0, 1), or nothing is left to train on.
        DataError: a file is missing, broken or contradicts another.
    """

    def __init__(
        self,
        *,
        root: Path,
        val_share: float = 0.15,
        test_share: float = 0.15,
        masks: Masks = "ids",
        verify: bool = True,
    ) -> None:
        for name, share in (("val_share", val_share), ("test_share", test_share)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} is a part of the pictures in [0, 1), got {share}")
        self.root = Path(root)
        self.masks: Masks = masks
        parts = find_parts(self.root)
        columns = list(dict.fromkeys(name for part in parts.values() for name in part.columns))
        classes = {column: self._class_names(column, parts.values()) for column in columns}
        dealt = deal(parts, val_share, test_share)
        if not dealt["train"]:
            raise ValueError(
                f"{self.root}: no picture is left to train on; add pictures, or lower val_share "
                f"({val_share}) and test_share ({test_share})"
            )
        self._splits = {split: pictures(self.root, dealt[split], classes) for split in dealt}
        self._names = read_names(self.root / "seg_classes.txt")
        if masks == "binary":
            self._names = self._names or ("background", "foreground")
        everything = [picture for split in self._splits.values() for picture in split]
        self._look_through(everything, verify)
        self.spec = self._describe(classes)

    def split(self, name: Literal["train", "val", "test"], /) -> "FolderSamples":
        """The samples of one split."""
        return FolderSamples(self._splits[name], self.masks)

    def _class_names(self, column: str, parts: Iterable[Part]) -> tuple[str, ...]:
        values = (row.get(column) for part in parts for row in part.rows.values())
        given = read_names(self.root / f"{column}_classes.txt")
        names = given or names_of(value for value in values if value)
        if not names:
            raise DataError(
                f"{self.root}: column '{column}' of labels.csv names no class; fill it in or "
                "remove it"
            )
        return names

    def _look_through(self, everything: list[Picture], verify: bool) -> None:
        """Check the files, and learn the mask's classes from them when nothing names these."""
        if verify:
            found = check_all(self.root, everything, self._check)
        elif self._names is None:
            found = check_all(self.root, everything, self._mask_ids)
        if self._names is None and any(picture.mask for picture in everything):
            self._names = counted_classes(self.root, everything, found)

    def _check(self, picture: Picture) -> list[int]:
        """The class ids in a picture's mask."""
        size = check_image(picture.image)
        if picture.box and (fault := box_fault(picture.box, size)):
            raise DataError(f"{picture.image}: {fault}")
        return self._mask_ids(picture, size)

    def _mask_ids(self, picture: Picture, size: tuple[int, int] | None = None) -> list[int]:
        if picture.mask is None:
            return []
        mask = read_mask(picture.mask)
        if size and mask.shape != size:
            raise DataError(wrong_size(picture, mask.shape, size))
        if self.masks == "binary":
            return []
        ids = [int(id) for id in np.flatnonzero(np.bincount(mask.ravel(), minlength=256))]
        if self._names and (strange := [i for i in ids if len(self._names) <= i != IGNORED]):
            raise DataError(
                f"{picture.mask}: class id {strange[0]} is out of range; seg_classes.txt names "
                f"{len(self._names)} classes"
            )
        return ids

    def _describe(self, classes: Mapping[str, tuple[str, ...]]) -> DatasetSpec:
        splits = self._splits.items()
        masks = {name: sum(p.mask is not None for p in split) for name, split in splits}
        boxes = {name: sum(p.box is not None for p in split) for name, split in splits}
        targets = {}
        if self._names and any(masks.values()):
            targets["seg"] = TargetSpec("mask", classes=self._names, labelled=masks)
        for target, names in with_cls(classes).items():
            labelled = {name: sum(target in p.classes for p in split) for name, split in splits}
            targets[target] = TargetSpec("class", classes=names, labelled=labelled)
        if any(boxes.values()):
            targets["bbox"] = TargetSpec("box", labelled=boxes)
        return DatasetSpec(targets=targets, sizes={name: len(split) for name, split in splits})


@dataclass(frozen=True)
class FolderSamples:
    """One split of :class:`Folder`."""

    pictures: list[Picture]
    masks: Masks

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> Sample:
        picture = self.pictures[index]
        pixels = read_image(picture.image)
        size = pixels.shape[0], pixels.shape[1]
        sample: Sample = {"image": as_image(pixels), "id": picture.id}
        if picture.mask is not None:
            mask = read_mask(picture.mask)
            if mask.shape != size:
                raise DataError(f"{wrong_size(picture, mask.shape, size)}; replace it")
            if self.masks == "binary":
                mask = (mask != 0).astype(np.uint8)
            sample["seg"] = tv_tensors.Mask(torch.from_numpy(mask))
        if picture.box is not None:
            sample["bbox"] = as_box(clipped(picture.box, size), size)
        return sample | {name: torch.tensor(index) for name, index in picture.classes.items()}


def pictures(
    root: Path, dealt: list[tuple[Part, str]], classes: Mapping[str, tuple[str, ...]], /
) -> list[Picture]:
    """Images with their labels, class labels as numbers."""
    made, problems = [], []
    for part, id in dealt:
        row = part.rows.get(id, {})
        numbers: dict[str, int] = {}
        for column, names in classes.items():
            if value := row.get(column):
                try:
                    numbers[column] = class_index(value, names)
                except KeyError as error:
                    problems.append(f"{part.folder / 'labels.csv'}: '{id}': {error.args[0]}")
        made.append(
            Picture(
                id=id,
                image=part.images[id],
                mask=part.masks.get(id),
                box=part.boxes.get(id),
                classes={
                    target: numbers[column]
                    for target, column in with_cls({name: name for name in classes}).items()
                    if column in numbers
                },
            )
        )
    refuse(root, problems)
    return made


def with_cls(columns: Mapping[str, Value], /) -> dict[str, Value]:
    """The columns, and the first of them as ``cls`` unless one is called so."""
    if not columns or "cls" in columns:
        return dict(columns)
    return {"cls": next(iter(columns.values())), **columns}


def counted_classes(
    root: Path, everything: list[Picture], found: list[list[int]], /
) -> tuple[str, ...]:
    """Names ``0`` to the highest id in any mask; every id up to it is in one."""
    ids = sorted({id for some in found for id in some} - {IGNORED})
    if len(ids) < 2:
        raise DataError(
            f"{root}: the masks hold no class id but {ids or 'none'} (255 is 'not labelled'); set "
            "--data.masks binary if 255 marks the object, or name the classes in seg_classes.txt"
        )
    if ids != list(range(len(ids))):
        gap = next(id for index, id in enumerate(ids) if id != index)
        file = next(p.mask for p, some in zip(everything, found, strict=True) if gap in some)
        raise DataError(
            f"{file}: class id {gap} is out of range: ids run from 0 without a gap unless "
            "seg_classes.txt names the classes; correct the mask or write that file"
        )
    return tuple(str(id) for id in ids)


def wrong_size(picture: Picture, mask: tuple[int, ...], image: tuple[int, ...], /) -> str:
    """That a mask does not fit its image."""
    return (
        f"{picture.mask}: {described(mask)} pixels, but its image {picture.image.name} has "
        f"{described(image)}"
    )
