"""Dataset: where images and labels come from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

Kind = Literal["mask", "class", "box", "map", "vector"]
Split = Literal["train", "val", "test"]
Sample = dict[str, Any]


@dataclass(frozen=True)
class TargetSpec:
    """One kind of label a dataset has.

    Args:
        kind: ``mask`` integer classes per pixel [H, W]; ``class`` one integer; ``box`` one
            axis-parallel box; ``map`` floats per pixel [C, H, W]; ``vector`` floats [C].
        classes: names, in the order of the integers, for ``mask`` and ``class``.
        channels: C of a ``map`` or ``vector``.
        ignore_index: the integer of a ``mask`` that means "not labelled".
        labelled: how many samples of each split have this label.
    """

    kind: Kind
    classes: tuple[str, ...] = ()
    channels: int = 1
    ignore_index: int = 255
    labelled: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset offers, known before any image is read.

    Args:
        targets: by the name under which a sample holds them.
        sizes: number of samples of each split.
    """

    targets: Mapping[str, TargetSpec]
    sizes: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain mappings, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "DatasetSpec":
        """The inverse of :meth:`to_json`."""
        targets = {
            name: TargetSpec(**{**spec, "classes": tuple(spec["classes"])})
            for name, spec in tree["targets"].items()
        }
        return cls(targets=targets, sizes=dict(tree["sizes"]))


class Samples(Protocol):
    """One split: a fixed number of samples, each the same whenever it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class Dataset(ABC):
    """Images with labels, in three splits.

    A sample is a flat dict: ``image`` (``tv_tensors.Image`` uint8 [3, H, W]), ``id`` (str, unique
    in its split) and one entry per label it has, under the names in ``spec.targets``; a missing
    label is an absent key. ``mask``: ``tv_tensors.Mask`` uint8 or int64 [H, W]; ``class``: int64
    scalar tensor; ``box``: ``tv_tensors.BoundingBoxes`` float32 [1, 4], XYXY, pixels of the image;
    ``map``: ``tv_tensors.Mask`` float32 [C, H, W]; ``vector``: float32 [C].

    Images may differ in size. Resizing and augmentation are the framework's work, not the
    reader's. The constructor checks all that a run will need.
    """

    spec: DatasetSpec
    image_size: int = 256
    """Side to which images are resized, in pixels, unless the user says otherwise."""

    @abstractmethod
    def split(self, name: Split, /) -> Samples:
        """The samples of one split. They are pickled to worker processes: open files lazily."""
