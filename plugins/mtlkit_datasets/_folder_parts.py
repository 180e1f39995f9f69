"""What lies in one ``images/`` folder and beside it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mtlkit import DataError

from ._boxes import Box, read_coco, read_voc
from ._images import IMAGE_SUFFIXES, check_all, files_in, refuse
from ._labels import Names, Row, read_table
from ._samples import shuffled

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Part:
    """Pictures and raw labels, all by the picture's id: its path in ``images/`` without suffix."""

    folder: Path
    images: dict[str, Path]
    masks: dict[str, Path] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)


def find_parts(root: Path, /) -> dict[str, Part]:
    """The parts by split, or one part called ``all``."""
    if (root / "images").is_dir():
        return {"all": read_part(root)}
    folders = {split: root / split for split in ("train", "val", "test")}
    parts = {
        split: read_part(folder)
        for split, folder in folders.items()
        if (folder / "images").is_dir()
    }
    if "train" not in parts:
        raise DataError(
            f"{root}: holds neither images/ nor train/images/; set --data.root to the folder that "
            "holds one of them"
        )
    return parts


def read_part(folder: Path, /) -> Part:
    """Find the pictures of one folder and read the labels beside them."""
    images = by_id(folder / "images", IMAGE_SUFFIXES)
    if not images:
        raise DataError(
            f"{folder / 'images'}: holds no picture; put files there that end in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    names = Names({id: path.relative_to(folder / "images") for id, path in images.items()})
    table = folder / "labels.csv"
    columns, rows = read_table(table, names) if table.is_file() else ([], {})
    return Part(
        folder=folder,
        images=images,
        masks=find_masks(folder, images),
        boxes=read_boxes(folder, images, names),
        columns=columns,
        rows=rows,
    )


def by_id(folder: Path, suffixes: Iterable[str], /) -> dict[str, Path]:
    """Files below a folder by their path in it without suffix."""
    found: dict[str, Path] = {}
    problems: list[str] = []
    for path in files_in(folder, suffixes):
        id = path.relative_to(folder).with_suffix("").as_posix()
        if id in found:
            problems.append(f"{path}: differs from {found[id].name} in its suffix alone")
        found[id] = path
    refuse(folder, problems)
    return found


def find_masks(folder: Path, images: Mapping[str, Path], /) -> dict[str, Path]:
    """Mask files by id; each belongs to a picture."""
    place = folder / "masks"
    if not place.is_dir():
        return {}
    masks = by_id(place, MASK_SUFFIXES)
    if not masks:
        raise DataError(
            f"{place}: holds no mask; put PNG files there called like the images (JPEG alters the "
            "class ids), or remove the folder"
        )
    refuse(folder, [f"{path}: has no image" for id, path in masks.items() if id not in images])
    return masks


def read_boxes(folder: Path, images: Mapping[str, Path], names: Names, /) -> dict[str, Box]:
    """Boxes by id, from ``boxes.json`` or ``boxes/*.xml``; what has none is left out."""
    coco, voc = folder / "boxes.json", folder / "boxes"
    if coco.is_file() and voc.is_dir():
        raise DataError(f"{folder}: holds boxes.json and boxes/; keep one of them")
    found: dict[str, Box | None] = {}
    if coco.is_file():
        by_name = read_coco(coco)
        ids = dict(zip(by_name, resolve(folder, coco, by_name, names.find), strict=True))
        found = {ids[name]: box for name, box in by_name.items()}
    elif voc.is_dir():
        files = by_id(voc, (".xml",))
        if not files:
            raise DataError(f"{voc}: holds no .xml file; put some there or remove the folder")
        refuse(folder, [f"{path}: has no image" for id, path in files.items() if id not in images])
        found = dict(zip(files, check_all(folder, files.values(), read_voc), strict=True))
    return {id: box for id, box in found.items() if box is not None}


def resolve(
    folder: Path, file: Path, names: Iterable[str], find: Callable[[str], str], /
) -> list[str]:
    """The ids that the names in a file mean."""
    ids, problems = [], []
    for name in names:
        try:
            ids.append(find(name))
        except KeyError as error:
            problems.append(f"{file}: {error.args[0]}")
    refuse(folder, problems)
    return ids


def deal(
    parts: Mapping[str, Part], val_share: float, test_share: float, /
) -> dict[str, list[tuple[Part, str]]]:
    """The pictures of each split, in an order made from their ids.

    The part of a split is that split; else the ``split`` column says; else a share of the
    pictures, chosen by their ids alone, is taken from the only part or from train.
    """
    if "all" in parts and "split" in next(iter(parts["all"].rows.values()), {}):
        return by_column(parts["all"])
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
    refuse(
        part.folder,
        [
            f"{path}: has no line in labels.csv, whose column 'split' must name every picture"
            for id, path in part.images.items()
            if id not in part.rows
        ],
    )
    splits: dict[str, list[tuple[Part, str]]] = {"train": [], "val": [], "test": []}
    for id in shuffled(part.rows):
        splits[part.rows[id]["split"]].append((part, id))
    return splits
