"""CamVid, as SegNet's authors prepared it."""

from functools import partial
from pathlib import Path
from typing import Literal

from mtlkit import DataProblem, Dataset, TargetSpec

from ._frames import IMAGE, FrameSamples, Part, Parts, describe, find_frames, look_through
from ._images import picture_classes, picture_pixels, picture_size

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
VOID = len(CLASSES)
PARTS: Parts = {
    IMAGE: Part("{}", (".png",), picture_size, picture_pixels),
    "seg": Part("{}annot", (".png",), picture_size, partial(picture_classes, len(CLASSES), VOID)),
}


class CamVid(Dataset):
    """CamVid: streets from a car, with 11 classes per pixel (``seg``).

    ``root`` is the folder ``CamVid`` of SegNet's tutorial: pictures in ``train/``, ``val/`` and
    ``test/``, and in ``trainannot/``, ``valannot/`` and ``testannot/`` PNG files of the same names
    with the class of each pixel, 11 where not labelled.

    Args:
        root: the folder described above.
        verify: decode every file at the start, so that a broken one cannot end a run; otherwise
            the files' headers.
        on_bad: ``skip`` leaves out every sample or label whose file is missing or bad and counts
            them.

    Raises:
        DataError: a file is missing, broken or contradicts another.

    Reference: Brostow et al., "Semantic Object Classes in Video", Pattern Recognition Letters 2009;
        the classes: Badrinarayanan et al., "SegNet", TPAMI 2017.
    """

    image_size = "352x480"

    def __init__(
        self, *, root: Path, verify: bool = True, on_bad: Literal["raise", "skip"] = "raise"
    ) -> None:
        root = Path(root)
        problems: list[DataProblem] = []
        folders = {split: split for split in ("train", "val", "test")}
        splits = find_frames(root, folders, PARTS, problems)
        self._splits = look_through(splits, PARTS, problems, verify=verify)
        self.spec = describe(self._splits, {"seg": TargetSpec("mask", classes=CLASSES)})
        self.set_aside(root, problems, on_bad)

    def split(self, name: Literal["train", "val", "test"], /) -> FrameSamples:
        """The samples of one split."""
        return FrameSamples(self._splits[name], PARTS)
