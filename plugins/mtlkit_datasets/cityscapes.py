"""Cityscapes, as the papers on multi-task learning use it."""

from functools import partial
from pathlib import Path
from typing import Literal

from mtlkit import DataProblem, Dataset, TargetSpec

from ._frames import IMAGE, FrameSamples, Part, describe, find_frames, hold_out, look_through
from ._npy import npy_classes, npy_depth, npy_image, npy_size

CLASSES = {
    7: ("flat", "construction", "object", "nature", "sky", "human", "vehicle"),
    19: (
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
}


class Cityscapes(Dataset):
    """Cityscapes: streets with 7 or 19 classes per pixel (``seg``) and inverse depth (``depth``).

    ``root`` holds the arrays of MTAN's authors: ``train/`` and ``val/`` with ``image/N.npy``
    [H, W, 3] from 0 to 1, ``label_7/N.npy`` and ``label_19/N.npy`` (or ``label/N.npy``) [H, W], -1
    where not labelled, and ``depth/N.npy`` [H, W, 1], 0 where not measured. What these call depth
    is a disparity: large where near.

    As with NYUv2 there is no validation part: ``test`` is their ``val``, and ``val`` is drawn from
    ``train``.

    Args:
        root: the folder described above.
        classes: how many classes ``seg`` has.
        val_share: part of the training frames kept for validation, in [0, 1); in runs of
            neighbours, which show the same town.
        verify: read every number at the start, so that a wrong one cannot end a run; otherwise the
            files' headers.
        on_bad: ``skip`` leaves out every sample or label whose file is missing or bad and counts
            them.

    Raises:
        ValueError: ``val_share`` is outside [0, 1).
        DataError: a file is missing, broken or contradicts another.

    Reference: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR
        2016; the arrays: Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019.
    """

    image_size = "128x256"

    def __init__(
        self,
        *,
        root: Path,
        classes: Literal[7, 19] = 7,
        val_share: float = 0.1,
        verify: bool = False,
        on_bad: Literal["raise", "skip"] = "raise",
    ) -> None:
        root = Path(root)
        names = CLASSES[classes]
        own = f"label_{classes}"
        labels = own if (root / "train" / own).is_dir() else "label"
        plane = partial(npy_size, 1)
        self._parts = {
            IMAGE: Part("{}/image", (".npy",), partial(npy_size, 3), npy_image),
            "seg": Part(f"{{}}/{labels}", (".npy",), plane, partial(npy_classes, classes)),
            "depth": Part("{}/depth", (".npy",), plane, npy_depth),
        }
        problems: list[DataProblem] = []
        splits = find_frames(root, {"train": "train", "test": "val"}, self._parts, problems)
        splits = hold_out(splits, val_share)
        self._splits = look_through(splits, self._parts, problems, verify=verify)
        seg = TargetSpec("mask", classes=names)
        depth = TargetSpec("map", quantity="inverse-distance")
        self.spec = describe(self._splits, {"seg": seg, "depth": depth})
        self.set_aside(root, problems, on_bad)

    def split(self, name: Literal["train", "val", "test"], /) -> FrameSamples:
        """The samples of one split."""
        return FrameSamples(self._splits[name], self._parts)
