"""NYU Depth v2, as the papers on multi-task learning use it."""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from mtlkit import DataError, DataProblem, Dataset, TargetSpec

from ._frames import IMAGE, FrameSamples, Part, Parts, describe, find_frames, hold_out, look_through
from ._images import IMAGE_SUFFIXES, opened, picture_classes, picture_pixels, picture_size
from ._npy import Floats, npy_classes, npy_depth, npy_image, npy_normals, npy_size

CLASSES = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)
TARGETS = {
    "seg": TargetSpec("mask", classes=CLASSES),
    "depth": TargetSpec("map", quantity="distance"),
    "normals": TargetSpec("map", channels=3, quantity="direction"),
}
LEVELS = {"L": 25.5, "I;16": 1000.0}
"""Grey levels per metre of depth pictures: 255 is 10 m, the sensor's range, or millimetres."""


class NYUv2(Dataset):
    """NYU Depth v2: rooms with 13 classes per pixel (``seg``), depth and surface normals.

    ``root`` holds the arrays of MTAN's authors, which LibMTL and most papers since use:
    ``train/`` and ``val/`` with ``image/N.npy`` [H, W, 3] from 0 to 1, ``label/N.npy`` [H, W], -1
    where not labelled, ``depth/N.npy`` [H, W, 1] in metres and ``normal/N.npy`` [H, W, 3], 0 where
    not measured. Or it holds pictures: ``train/`` and ``test/`` with ``rgb/N.jpg``,
    ``seg13/N.png``, 255 where not labelled, and ``depth/N.png``, whose 8 bits span 10 m or whose 16
    bits are millimetres. Any of the labels may be absent.

    The official split has no validation part, and papers report the test results of their last
    epochs, or their best. Here ``test`` is the official test part, which those arrays call ``val``,
    and ``val`` is drawn from the official training part. With ``val_share`` 0 all of that is
    trained on, as in the papers.

    Args:
        root: the folder described above.
        val_share: part of the training frames kept for validation, in [0, 1); in runs of
            neighbours, which show the same room.
        verify: read every number at the start, so that a wrong one cannot end a run; otherwise the
            files' headers.
        on_bad: ``skip`` leaves out every sample or label whose file is missing or bad and counts
            them.

    Raises:
        ValueError: ``val_share`` is outside [0, 1).
        DataError: a file is missing, broken or contradicts another.

    Reference: Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images", ECCV
        2012; the arrays: Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019.
    """

    image_size = "288x384"

    def __init__(
        self,
        *,
        root: Path,
        val_share: float = 0.1,
        verify: bool = False,
        on_bad: Literal["raise", "skip"] = "raise",
    ) -> None:
        root = Path(root)
        self._parts, test = find_layout(root)
        problems: list[DataProblem] = []
        splits = find_frames(root, {"train": "train", "test": test}, self._parts, problems)
        splits = hold_out(splits, val_share)
        self._splits = look_through(splits, self._parts, problems, verify=verify)
        self.spec = describe(self._splits, TARGETS)
        self.set_aside(root, problems, on_bad)

    def split(self, name: Literal["train", "val", "test"], /) -> FrameSamples:
        """The samples of one split."""
        return FrameSamples(self._splits[name], self._parts)


ARRAYS: Parts = {
    IMAGE: Part("{}/image", (".npy",), partial(npy_size, 3), npy_image),
    "seg": Part("{}/label", (".npy",), partial(npy_size, 1), partial(npy_classes, len(CLASSES))),
    "depth": Part("{}/depth", (".npy",), partial(npy_size, 1), npy_depth),
    "normals": Part("{}/normal", (".npy",), partial(npy_size, 3), npy_normals),
}


def picture_depth(path: Path, /) -> Floats:
    """Metres [1, H, W] of a grey picture."""
    with opened(path) as image:
        mode, levels = image.mode, np.array(image)
    if mode not in LEVELS:
        raise DataError(f"{path}: a picture of mode {mode}; depth is grey, of 8 or 16 bits")
    return (levels / np.float32(LEVELS[mode])).astype(np.float32)[None]


PICTURES: Parts = {
    IMAGE: Part("{}/rgb", IMAGE_SUFFIXES, picture_size, picture_pixels),
    "seg": Part("{}/seg13", (".png",), picture_size, partial(picture_classes, len(CLASSES), 255)),
    "depth": Part("{}/depth", (".png",), picture_size, picture_depth),
}


def find_layout(root: Path, /) -> tuple[Parts, str]:
    """What is in the folder, and what it calls the official test part."""
    if (root / "train" / "image").is_dir():
        return ARRAYS, "val"
    if (root / "train" / "rgb").is_dir():
        return PICTURES, "test"
    raise DataError(
        f"{root}: holds neither train/image/ with arrays nor train/rgb/ with pictures; set "
        "--data.root to the folder that holds one of them"
    )
