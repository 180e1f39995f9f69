"""Boxes: their files (COCO, Pascal VOC), their checks, the box of a mask."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from mtlkit import DataError

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""
ROUNDING = 1.0
"""Pixels by which a box may reach out of its image: annotation tools round so."""


def mask_extent(mask: NDArray[np.bool_], /) -> Box | None:
    """Smallest box that holds every true pixel of [H, W]; None when there is none."""
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def largest(boxes: Sequence[Box], /) -> Box | None:
    """The box of the largest area, the first of several; None of none."""
    return max(boxes, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]), default=None)


def clipped(box: Box, size: tuple[int, int], /) -> Box:
    """The box inside an image of that height and width."""
    height, width = size
    left, top, right, bottom = box
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def box_fault(box: Box, size: tuple[int, int] | None = None, /) -> str | None:
    """What is wrong with a box, if anything; ``size`` is height and width of its image."""
    text = "box [" + ", ".join(f"{edge:g}" for edge in box) + "]"
    left, top, right, bottom = box
    if not all(math.isfinite(edge) for edge in box):
        return f"{text} is not made of finite numbers"
    if right <= left or bottom <= top:
        return f"{text} is empty or inverted (left, top, right, bottom)"
    if size is None:
        return None
    height, width = size
    if min(left, top) < -ROUNDING or right > width + ROUNDING or bottom > height + ROUNDING:
        return f"{text} reaches out of its image of {width}x{height} pixels"
    if box_fault(clipped(box, size)):
        return f"{text} lies outside its image of {width}x{height} pixels"
    return None


def read_voc(path: Path, /) -> Box | None:
    """The largest box of a Pascal VOC file, whose pixels count from 1 and include both ends."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, LookupError, ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: not readable as XML ({error})") from error
    try:
        boxes = [_voc_box(node) for node in root.iter("bndbox")]
    except ValueError as error:
        raise DataError(f"{path}: a <bndbox> lacks a number xmin, ymin, xmax or ymax") from error
    if fault := first_fault(boxes):
        raise DataError(f"{path}: {fault}; correct or remove it")
    return largest(boxes)


def _voc_box(node: ElementTree.Element) -> Box:
    left, top, right, bottom = (
        float(node.findtext(edge, default="")) for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    return left - 1, top - 1, right, bottom


def read_coco(path: Path, /) -> tuple[dict[str, Box | None], dict[str, str]]:
    """The largest box of every image in a COCO file, by the image's file name; crowds do not count.

    Returns:
        Boxes, and for the images that have none because one is wrong, what is wrong.

    Raises:
        DataError: nothing in the file can be trusted.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
        names = {image["id"]: str(image["file_name"]) for image in tree["images"]}
        if len(set(names.values())) < len(tree["images"]):
            raise ValueError("an image is listed twice")
        boxes: dict[Any, list[Box]] = {key: [] for key in names}
        faults: dict[str, str] = {}
        for note in tree["annotations"]:
            found = boxes[note["image_id"]]
            if note.get("iscrowd") or "bbox" not in note:
                continue
            try:
                left, top, width, height = (float(number) for number in note["bbox"])
            except (OverflowError, TypeError, ValueError):
                faults[names[note["image_id"]]] = "a bbox is not four numbers [x, y, width, height]"
            else:
                found.append((left, top, left + width, top + height))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not in COCO format ({type(error).__name__}: {error}); it needs images with "
            "id and file_name, and annotations with image_id and bbox [x, y, width, height]"
        ) from error
    for key, name in names.items():
        if name not in faults and (fault := first_fault(boxes[key])):
            faults[name] = f"{fault}; correct or remove it"
    return {name: largest(boxes[key]) for key, name in names.items() if name not in faults}, faults


def first_fault(boxes: Sequence[Box], /) -> str | None:
    """What is wrong with the first wrong box."""
    return next(filter(None, map(box_fault, boxes)), None)
