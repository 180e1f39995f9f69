"""A person's own pictures: a folder of images, and beside it whatever labels there are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torchvision import tv_tensors

from mtlkit import DataError, DataProblem, Dataset, DatasetSpec, Sample, TargetSpec

from ._boxes import Box, box_fault, clipped
from ._folder_parts import Part, deal, find_parts
from ._images import check_image, described, in_parallel, noting, read_image, read_mask
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


@dataclass
class Looked:
    """A picture after a look at its files.

    Args:
        picture: without its bad labels; None when it is bad itself.
        ids: the classes in its mask.
        problems: what is wrong with its files.
    """

    picture: Picture | None
    ids: list[int]
    problems: list[DataProblem]


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
        on_bad: ``skip`` leaves out every sample or label that is bad and counts them; what makes a
            whole table useless is an error all the same.

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
        on_bad: Literal["raise", "skip"] = "raise",
    ) -> None:
        for name, share in (("val_share", val_share), ("test_share", test_share)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} is a part of the pictures in [0, 1), got {share}")
        self.root = Path(root)
        self.masks: Masks = masks
        parts = find_parts(self.root)
        columns = list(dict.fromkeys(c for part in parts.values() for c in part.table.classes))
        classes = {column: self._class_names(column, parts.values()) for column in columns}
        dealt = deal(parts, val_share, test_share)
        if not (dealt["train"] or any(part.problems for part in parts.values())):
            raise ValueError(
                f"{self.root}: no picture is left to train on; add pictures, or lower val_share "
                f"({val_share}) and test_share ({test_share})"
            )
        problems = [problem for part in parts.values() for problem in part.problems]
        splits = {name: pictures(dealt[name], classes, problems) for name in dealt}
        self._names = read_names(self.root / "seg_classes.txt")
        if masks == "binary":
            self._names = self._names or ("background", "foreground")
        self._splits = self._look_through(splits, verify, problems)
        self.spec = self._describe(classes)
        self.set_aside(self.root, problems, on_bad)

    def split(self, name: Literal["train", "val", "test"], /) -> "FolderSamples":
        """The samples of one split."""
        return FolderSamples(self._splits[name], self.masks)

    def _class_names(self, column: str, parts: Iterable[Part]) -> tuple[str, ...]:
        values = (row.get(column) for part in parts for row in part.table.rows.values())
        given = read_names(self.root / f"{column}_classes.txt")
        names = given or names_of(value for value in values if value)
        if not names:
            raise DataError(
                f"{self.root}: column '{column}' of labels.csv names no class; fill it in or "
                "remove it"
            )
        return names

    def _look_through(
        self, splits: Mapping[str, list[Picture]], verify: bool, problems: list[DataProblem]
    ) -> dict[str, list[Picture]]:
        """Check the files, and learn the mask's classes from them when nothing names these.

        Returns:
            The splits without what is bad, which is added to ``problems``.
        """
        if not verify and self._names is not None:
            return dict(splits)
        look = self._look if verify else self._look_at_mask
        looked = {name: in_parallel(look, split) for name, split in splits.items()}
        everything = [found for split in looked.values() for found in split]
        if self._names is None and any(found.ids for found in everything):
            self._names = count_classes(self.root, everything)
        problems += sorted(
            (p for found in everything for p in found.problems), key=lambda p: p.text
        )
        return {
            name: [found.picture for found in split if found.picture is not None]
            for name, split in looked.items()
        }

    def _look(self, picture: Picture) -> Looked:
        faults: dict[str, str] = {}
        size, ids = None, []
        with noting(faults, "image"):
            size = check_image(picture.image)
        with noting(faults, "seg"):
            ids = self._mask_ids(picture, size)
        if picture.box and size and (fault := box_fault(picture.box, size)):
            faults["bbox"] = f"{picture.image}: {fault}"
        return looked(picture, ids, faults)

    def _look_at_mask(self, picture: Picture) -> Looked:
        faults: dict[str, str] = {}
        ids: list[int] = []
        with noting(faults, "seg"):
            ids = self._mask_ids(picture, None)
        return looked(picture, ids, faults)

    def _mask_ids(self, picture: Picture, size: tuple[int, int] | None) -> list[int]:
        """The class ids in a picture's mask, which has that height and width."""
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
    least: tuple[int, int] | None = None

    def at_least(self, size: tuple[int, int], /) -> "FolderSamples":
        """The same samples, with images that are large enough for that height and width."""
        return replace(self, least=size)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> Sample:
        picture = self.pictures[index]
        photo = read_image(picture.image, self.least)
        sample: Sample = {"image": as_image(photo.pixels), "id": picture.id}
        if picture.mask is not None:
            mask = read_mask(picture.mask)
            if mask.shape != photo.size:
                raise DataError(f"{wrong_size(picture, mask.shape, photo.size)}; replace it")
            mask = photo.mask(mask)
            if self.masks == "binary":
                mask = (mask != 0).astype(np.uint8)
            sample["seg"] = tv_tensors.Mask(torch.from_numpy(mask))
        if picture.box is not None:
            box = clipped(picture.box, photo.size)
            sample["bbox"] = as_box(box, photo.pixels.shape, photo.step)
        return sample | {name: torch.tensor(index) for name, index in picture.classes.items()}


def pictures(
    dealt: list[tuple[Part, str]],
    classes: Mapping[str, tuple[str, ...]],
    problems: list[DataProblem],
    /,
) -> list[Picture]:
    """Images with their labels, class labels as numbers; adds to ``problems``."""
    made = []
    for part, id in dealt:
        row = part.table.rows.get(id, {})
        numbers: dict[str, int] = {}
        for column, names in classes.items():
            if value := row.get(column):
                try:
                    numbers[column] = class_index(value, names)
                except KeyError as error:
                    text = f"{part.folder / 'labels.csv'}: '{id}': {error.args[0]}"
                    problems.append(DataProblem(text, labels=(column,)))
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
    return made


def with_cls(columns: Mapping[str, Value], /) -> dict[str, Value]:
    """The columns, and the first of them as ``cls`` unless one is called so."""
    if not columns or "cls" in columns:
        return dict(columns)
    return {"cls": next(iter(columns.values())), **columns}


def looked(picture: Picture, ids: list[int], faults: Mapping[str, str], /) -> Looked:
    """A picture without what has a fault; faults by ``image`` or the label's name."""
    spoilt = "image" in faults
    problems = [
        DataProblem(text, sample=what == "image", labels=() if spoilt else (what,))
        for what, text in faults.items()
    ]
    if spoilt:
        return Looked(None, ids, problems)
    mask = None if "seg" in faults else picture.mask
    box = None if "bbox" in faults else picture.box
    return Looked(replace(picture, mask=mask, box=box), ids, problems)


def count_classes(root: Path, everything: list[Looked], /) -> tuple[str, ...]:
    """Names ``0`` to the highest class id that is in any mask with all below it.

    A mask that holds a higher id is bad.
    """
    ids = {id for found in everything for id in found.ids} - {IGNORED}
    number = next(id for id in range(IGNORED + 1) if id not in ids)
    strange = {id for id in ids if id > number}
    for found in everything:
        if found.picture and (beyond := sorted(strange.intersection(found.ids))):
            text = (
                f"{found.picture.mask}: class id {beyond[0]} is out of range: no mask holds "
                f"{number}, and ids run from 0 without a gap unless seg_classes.txt names the "
                "classes; correct the mask or write that file"
            )
            found.problems.append(DataProblem(text, labels=("seg",)))
            found.picture = replace(found.picture, mask=None)
    if number < 2:
        shown = ", ".join(map(str, sorted(ids)[:8])) or "none"
        raise DataError(
            f"{root}: the masks hold the class ids {shown}, not 0, 1 and so on (255 is 'not "
            "labelled'); set --data.masks binary if a number like 255 marks the object, or name "
            "the classes in seg_classes.txt"
        )
    return tuple(str(id) for id in range(number))


def wrong_size(picture: Picture, mask: tuple[int, ...], image: tuple[int, ...], /) -> str:
    """That a mask does not fit its image."""
    return (
        f"{picture.mask}: {described(mask)} pixels, but its image {picture.image.name} has "
        f"{described(image)}"
    )
