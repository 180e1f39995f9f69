"""Dataset: where images and labels come from."""

import os
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from mtlkit.errors import DataError, printable, shown

if TYPE_CHECKING:  # a configuration is read without torch
    from torch import Tensor

Kind = Literal["mask", "class", "box", "map", "vector"]
Quantity = Literal["plain", "distance", "inverse-distance", "direction"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Sample = dict[str, Any]
SHOWN = 5
"""Problems that one error names."""
LONGEST_NAME = 1000
"""Characters of a class's name."""
SLACK = 1e-3
"""By which the length of a direction may differ from 1."""
LONGEST = 500
"""Characters of a problem's text: it may quote a file."""


@dataclass(frozen=True)
class TargetSpec:
    """One kind of label a dataset has.

    Args:
        kind: ``mask`` integer classes per pixel [H, W]; ``class`` one integer; ``box`` one
            axis-parallel box; ``map`` floats per pixel [C, H, W]; ``vector`` floats [C].
        classes: names, in the order of the integers, for ``mask`` and ``class``.
        channels: C of a ``map`` or ``vector``.
        quantity: what the floats of a ``map`` measure. An augmentation that mirrors the picture or
            shows a part of it changes them accordingly, see :meth:`mtlkit.geometry.View.map`.
            ``distance``: from the camera, 0 where not measured; ``inverse-distance``: a disparity,
            0 where not measured; ``direction``: unit vectors x, y, z, of which x runs along the
            picture's rows, y along its columns, either way round, and 0 where not measured;
            ``plain``: anything else, which is left as it is.
        ignore_index: the integer of a ``mask`` that means "not labelled".
        labelled: how many samples of each split have this label.
    """

    kind: Kind
    classes: tuple[str, ...] = ()
    channels: int = 1
    quantity: Quantity = "plain"
    ignore_index: int = 255
    labelled: Mapping[str, int] = field(default_factory=dict)


def map_fault(values: "Tensor", quantity: Quantity, /) -> str | None:
    """What is wrong with the numbers ``[C, H, W]`` of a ``map``, if anything."""
    if not bool(values.isfinite().all()):
        return "is not finite"
    if quantity in ("distance", "inverse-distance") and bool((values < 0).any()):
        return f"is {float(values.min()):g} somewhere; {quantity} is above 0, or 0 if not measured"
    if quantity == "direction":
        lengths = values.square().sum(0).sqrt()
        wrong = lengths[(lengths > 0) & ((lengths - 1).abs() > SLACK)]
        if len(wrong):
            return f"has a direction of length {float(wrong[0]):g}; it is 1, or 0 if not measured"
    return None


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset offers, known before any image is read.

    Args:
        targets: by the name under which a sample holds them.
        sizes: number of samples of each split.
    """

    targets: Mapping[str, TargetSpec]
    sizes: Mapping[str, int] = field(default_factory=dict)

    def check_names(self) -> None:
        """Refuse what no label or class can be called.

        Raises:
            DataError: a name is too long, or has a control character.
        """
        classes = (name for target in self.targets.values() for name in target.classes)
        for name in (*self.targets, *classes):
            if not is_showable(name):
                raise DataError(
                    f"a label or class cannot be called {shown(name)}: a name has at most "
                    f"{LONGEST_NAME} characters, and none that controls a terminal"
                )

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


@runtime_checkable
class ReducibleSamples(Samples, Protocol):
    """Samples of a reader that can decode a large image at a part of its size, for less work."""

    def at_least(self, size: tuple[int, int], /) -> Samples:
        """The same samples, with images that may be smaller, and labels that fit them.

        An image that is given smaller has still at least that height and width, and the same
        shape but for rounding; one that is not larger is given as it is.
        """


@dataclass(frozen=True)
class DataProblem:
    """Something bad in the data, and what a run that goes on does without.

    Args:
        text: the file and what is wrong with it.
        sample: whether a sample is left out for it.
        labels: of one sample, the labels that are left out for it.
    """

    text: str
    sample: bool = False
    labels: tuple[str, ...] = ()


def one_line(text: str, /) -> str:
    """A text that may quote a file, short and without what a terminal would not print."""
    return printable(" ".join(text[:LONGEST].split()) + "..." * (len(text) > LONGEST))


def is_showable(name: str, /) -> bool:
    """Whether a class or a label can be called so: its name is shown in terminals and pictures."""
    odd = (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    return len(name) <= LONGEST_NAME and not any(odd)


class BadData(DataError):
    """Data is refused.

    Args:
        message: names the first few problems.
        problems: all of them.
    """

    def __init__(self, message: str, problems: Sequence[DataProblem], /) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


def left_out(problems: Sequence[DataProblem], /) -> str:
    """``1 sample, 2 x seg, 1 x bbox``: what a run goes on without."""
    samples = sum(problem.sample for problem in problems)
    labels = Counter(label for problem in problems for label in problem.labels)
    parts = [f"{samples} sample{'s' * (samples != 1)}"] if samples else []
    return ", ".join([*parts, *(f"{number} x {name}" for name, number in labels.items())])


class Dataset(ABC):
    """Images with labels, in three splits.

    A sample is a flat dict: ``image`` (``tv_tensors.Image`` uint8 [3, H, W]), ``id`` (str, unique
    in its split) and one entry per label it has, under the names in ``spec.targets``; a missing
    label is an absent key. ``mask``: ``tv_tensors.Mask`` uint8 or int64 [H, W]; ``class``: int64
    scalar tensor; ``box``: ``tv_tensors.BoundingBoxes`` float32 [1, 4], XYXY, pixels of the image;
    ``map``: ``tv_tensors.Mask`` float32 [C, H, W]; ``vector``: float32 [C].

    Images may differ in size. Resizing and augmentation are the framework's work, not the
    reader's. The constructor checks all that a run will need, and raises a ``DataError`` for what
    is bad. A reader that can do without a bad sample or label takes the option
    ``on_bad: Literal["raise", "skip"] = "raise"`` and hands what it found to :meth:`set_aside`.
    """

    spec: DatasetSpec
    image_size: int | str = 256
    """Side to which images are resized, or HEIGHTxWIDTH, in pixels, unless the user says so."""
    problems: Sequence[DataProblem] = ()
    """What is bad and left out, all of it; :meth:`set_aside` sets it."""

    def set_aside(
        self,
        where: Path | str,
        problems: Sequence[DataProblem],
        on_bad: Literal["raise", "skip"],
        /,
    ) -> None:
        """Refuse bad data, or note in ``problems`` what is left out.

        The last thing in a constructor: ``spec`` is that of the samples and labels that are left.

        Args:
            where: the folder of the data, which the texts of problems need not repeat.
            problems: all that was found.
            on_bad: what the user wants.

        Raises:
            DataError: there are problems and the user wants to know, or nothing is left to train
                on. It names the first few problems and how many more there are.
        """
        inside = f"{where}{os.sep}"
        short = [replace(p, text=one_line(p.text.replace(inside, ""))) for p in problems]
        empty = not self.spec.sizes.get("train")
        if short and (empty or on_bad == "raise"):
            named = "; ".join(problem.text for problem in short[:SHOWN])
            more = f"; and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
            number = "1 problem" if len(short) == 1 else f"{len(short)} problems"
            way = "" if empty else ", or go on without it by --data.on-bad skip"
            none = "nothing is left to train on: " if empty else ""
            message = f"{none}{number} in {where}: {named}{more}. Mend, replace or remove what is "
            raise BadData(f"{message}named{way}", short)
        self.problems = tuple(short)

    @abstractmethod
    def split(self, name: Split, /) -> Samples:
        """The samples of one split. They are pickled to worker processes: open files lazily.

        They may have a method ``at_least(size)``, see :class:`ReducibleSamples`: a run says by it
        which height and width its images need. What they read is best held as ``Path``: a cache on
        disk is then made anew when a file changes.
        """
