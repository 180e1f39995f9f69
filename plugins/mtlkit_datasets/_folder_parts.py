"""What lies in one ``images/`` folder and beside it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mtlkit import DataError, DataProblem

from ._boxes import Box, read_coco, read_voc
from ._images import IMAGE_SUFFIXES, files_in, in_parallel, noting
from ._labels import Names, Table, read_table
from ._samples import shuffled

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")


@dataclass
class Part:
    """Pictures and raw labels, all by the picture's id: its path in ``images/`` without suffix.

    Args:
        folder: that holds ``images/``.
        images: all pictures, the bad ones too.
        bad: pictures that cannot be used.
        problems: found so far, with the files that belong to no picture.
    """

    folder: Path
    images: dict[str, Path]
    bad: set[str] = field(default_factory=set)
    masks: dict[str, Path] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)
    table: Table = field(default_factory=Table)
    problems: list[DataProblem] = field(default_factory=list)


def find_parts(root: Path, /) -> dict[str, Part]:
    """The parts by split, or one part called ``all``."""
    if (root / "images").is_dir():
        return {"all": read_part(root, splits=True)}
    folders = {split: root / split for split in ("train", "val", "test")}
    parts = {
        split: read_part(folder, splits=False)
        for split, folder in folders.items()
        if (folder / "images").is_dir()
    }
    if "train" not in parts:
        raise DataError(
            f"{root}: holds neither images/ nor train/images/; set --data.root to the folder that "
            "holds one of them"
        )
    return parts


def read_part(folder: Path, /, *, splits: bool) -> Part:
    """Find the pictures of one folder and read the labels beside them.

    Args:
        folder: that holds ``images/``.
        splits: whether a column ``split`` of ``labels.csv`` decides.

    Raises:
        DataError: there are no pictures, or labels that cannot be told apart.
    """
    images, faults = by_id(folder / "images", IMAGE_SUFFIXES)
    if not images:
        raise DataError(
            f"{folder / 'images'}: holds no picture; put files there that end in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    part = Part(folder, images, bad=set(faults))
    part.problems += [DataProblem(fault, sample=True) for fault in faults.values()]
    names = Names({id: path.relative_to(folder / "images") for id, path in images.items()})
    table = folder / "labels.csv"
    if table.is_file():
        part.table = read_table(table, names, splits=splits)
        part.problems += part.table.problems
    find_masks(part)
    find_boxes(part, names)
    return part


def by_id(folder: Path, suffixes: Iterable[str], /) -> tuple[dict[str, Path], dict[str, str]]:
    """Files below a folder by their path in it without suffix, and what is wrong with any."""
    found: dict[str, Path] = {}
    faults: dict[str, str] = {}
    for path in files_in(folder, suffixes):
        id = path.relative_to(folder).with_suffix("").as_posix()
        if id in found:
            faults[id] = f"{path}: differs from {found[id].name} in its suffix alone"
        elif id.encode(errors="replace").decode() != id:
            faults[id] = f"{path}: its name is not UTF-8; rename it"
        found[id] = path
    return found, faults


def find_masks(part: Part, /) -> None:
    """Mask files; each belongs to a picture."""
    place = part.folder / "masks"
    if not place.is_dir():
        return
    masks, faults = by_id(place, MASK_SUFFIXES)
    if not masks:
        raise DataError(
            f"{place}: holds no mask; put PNG files there called like the images (JPEG alters the "
            "class ids), or remove the folder"
        )
    part.masks = keep(part, "seg", masks, faults)


def keep(
    part: Part, label: str, files: Mapping[str, Path], faults: Mapping[str, str], /
) -> dict[str, Path]:
    """The label files that belong to a picture and can be told apart."""
    part.problems += [
        DataProblem(f"{path}: has no image") for id, path in files.items() if id not in part.images
    ]
    lost = {id: text for id, text in faults.items() if id in part.images}
    part.problems += [
        DataProblem(text, labels=() if id in part.bad else (label,)) for id, text in lost.items()
    ]
    return {id: path for id, path in files.items() if id in part.images and id not in lost}


def find_boxes(part: Part, names: Names, /) -> None:
    """Boxes of ``boxes.json`` or ``boxes/*.xml``; a picture without one is left out."""
    coco, voc = part.folder / "boxes.json", part.folder / "boxes"
    if coco.is_file() and voc.is_dir():
        raise DataError(f"{part.folder}: holds boxes.json and boxes/; keep one of them")
    found: dict[str, Box | None] = {}
    faults: dict[str, str] = {}
    if coco.is_file():
        boxes, wrong = read_coco(coco)
        for name in (*boxes, *wrong):
            try:
                id = names.find(name)
            except KeyError as error:
                part.problems.append(DataProblem(f"{coco}: {error.args[0]}"))
                continue
            if id in found or id in faults:
                faults[id] = f"{coco}: '{id}' is listed twice"
            elif name in wrong:
                faults[id] = f"{coco}: {name}: {wrong[name]}"
            else:
                found[id] = boxes[name]
    elif voc.is_dir():
        files, twice = by_id(voc, (".xml",))
        if not files:
            raise DataError(f"{voc}: holds no .xml file; put some there or remove the folder")
        files = keep(part, "bbox", files, twice)

        def read(id: str) -> None:
            with noting(faults, id):
                found[id] = read_voc(files[id])

        in_parallel(read, files)
    part.problems += [
        DataProblem(text, labels=() if id in part.bad else ("bbox",)) for id, text in faults.items()
    ]
    part.boxes = {id: box for id, box in found.items() if box is not None and id not in faults}


def deal(
    parts: Mapping[str, Part], val_share: float, test_share: float, /
) -> dict[str, list[tuple[Part, str]]]:
    """The pictures of each split, in an order made from their ids.

    The part of a split is that split; else the ``split`` column says; else a share of the
    pictures, chosen by their ids alone, is taken from the only part or from train. Bad pictures
    are dealt too, and then left out: they move no other.
    """
    if "all" in parts and parts["all"].table.splits:
        splits = by_column(parts["all"])
    else:
        splits = by_share(parts, val_share, test_share)
    return {
        name: [(part, id) for part, id in split if id not in part.bad]
        for name, split in splits.items()
    }


def by_share(
    parts: Mapping[str, Part], val_share: float, test_share: float, /
) -> dict[str, list[tuple[Part, str]]]:
    """The splits that folders give, and shares where they do not."""
    splits = {
        split: [(part, id) for id in shuffled(part.images)]
        for split, part in parts.items()
        if split != "all"
    }
    rest = splits.get("train") or [(parts["all"], id) for id in shuffled(parts["all"].images)]
    total = len(rest)
    for split, share in (("test", test_share), ("val", val_share)):
        if split not in splits:
            number = max(1, round(share * total)) if share else 0
            splits[split], rest = rest[:number], rest[number:]
    splits["train"] = rest
    return splits


def by_column(part: Part, /) -> dict[str, list[tuple[Part, str]]]:
    """The splits that ``labels.csv`` gives."""
    unplaced = part.images.keys() - part.table.rows.keys() - part.table.bad
    part.problems += [
        DataProblem(
            f"{part.images[id]}: has no line in labels.csv, whose column 'split' must name every "
            "picture",
            sample=id not in part.bad,
        )
        for id in sorted(unplaced)
    ]
    part.bad |= unplaced | part.table.bad
    splits: dict[str, list[tuple[Part, str]]] = {"train": [], "val": [], "test": []}
    for id in shuffled(part.table.rows):
        splits[part.table.rows[id]["split"]].append((part, id))
    return splits
