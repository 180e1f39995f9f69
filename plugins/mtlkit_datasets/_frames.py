"""Frames: pictures and, in folders beside them, files of the same names with their labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from mtlkit import DataError, DataProblem, DatasetSpec, Sample, TargetSpec

from ._folder_parts import by_id
from ._images import described, in_parallel, noting
from ._samples import as_image, natural, shuffled

IMAGE = "image"
RUN = 16
"""Neighbours that go to the same split."""


@dataclass(frozen=True)
class Part:
    """The files of one kind, the pictures or one of their labels.

    Args:
        place: their folder, in that of the dataset, with ``{}`` for the name of the split's.
        suffixes: how their names end.
        size: height and width of a file, from its header where it has one.
        read: what a sample holds of a file; of a picture [H, W, 3].
    """

    place: str
    suffixes: tuple[str, ...]
    size: Callable[[Path], tuple[int, int]]
    read: Callable[[Path], NDArray[Any]]


Parts = Mapping[str, Part]
"""By ``image`` and the names of labels."""


@dataclass(frozen=True)
class Frame:
    """A picture's file, the first, and those of its labels, by the names of their parts."""

    id: str
    files: Mapping[str, Path]


@dataclass(frozen=True)
class FrameSamples:
    """Frames, read one at a time."""

    frames: Sequence[Frame]
    parts: Parts

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int, /) -> Sample:
        frame = self.frames[index]
        read = {name: self.parts[name].read(path) for name, path in frame.files.items()}
        sample: Sample = {IMAGE: as_image(read.pop(IMAGE)), "id": frame.id}
        return sample | {name: tv_tensors.Mask(torch.from_numpy(a)) for name, a in read.items()}


Splits = dict[str, list[Frame]]


def find_frames(
    root: Path, folders: Mapping[str, str], parts: Parts, problems: list[DataProblem], /
) -> Splits:
    """The frames of each split, in the order of their names.

    A frame has a file for every label that any frame of its split has, whether it is there or not.

    Args:
        root: the dataset's folder.
        folders: what each split's folder is called.
        parts: what is to be found.
        problems: gets the files that belong to no picture.

    Raises:
        DataError: a folder of pictures is missing or empty.
    """
    return {split: _find(root, folder, parts, problems) for split, folder in folders.items()}


def _find(root: Path, folder: str, parts: Parts, problems: list[DataProblem]) -> list[Frame]:
    places = {name: root / part.place.format(folder) for name, part in parts.items()}
    images, twice = by_id(places[IMAGE], parts[IMAGE].suffixes)
    if not images:
        raise DataError(
            f"{places[IMAGE]}: holds no picture (*{parts[IMAGE].suffixes[0]}); --data.root is the "
            f"folder that holds {places[IMAGE].relative_to(root)}"
        )
    problems += [DataProblem(fault, sample=True) for fault in twice.values()]
    frames = {id: {IMAGE: path} for id, path in images.items() if id not in twice}
    for name, suffixes in ((name, part.suffixes) for name, part in parts.items() if name != IMAGE):
        labels, faults = by_id(places[name], suffixes)
        strays = [f"{path}: has no image" for id, path in labels.items() if id not in images]
        problems += [DataProblem(text) for text in (*faults.values(), *strays)]
        for id, files in frames.items() if labels else ():
            files[name] = labels.get(id, places[name] / f"{id}{suffixes[0]}")
    return [Frame(id, frames[id]) for id in sorted(frames, key=natural)]


def hold_out(splits: Splits, share: float, /) -> Splits:
    """Train without a share of it, which becomes val.

    Frames of one scene have neighbouring names: runs of them are held out together, chosen by
    their names alone, so that val shows scenes that train does not.

    Args:
        splits: with all frames of train, those too that will turn out bad: they move no other.
        share: in [0, 1).

    Raises:
        ValueError: it is not.
    """
    if not 0 <= share < 1:
        raise ValueError(f"val_share is a part of the frames in [0, 1), got {share}")
    frames = splits["train"]
    number = min(max(1, round(share * len(frames))), len(frames) - 1) if share else 0
    runs = {frames[i].id: frames[i : i + RUN] for i in range(0, len(frames), RUN)}
    chosen = [frame for first in shuffled(runs) for frame in runs[first]][:number]
    held = {frame.id for frame in chosen}
    rest = [frame for frame in frames if frame.id not in held]
    return {"train": rest, "val": chosen, **{k: v for k, v in splits.items() if k != "train"}}


def look_through(
    splits: Splits, parts: Parts, problems: list[DataProblem], /, *, verify: bool
) -> Splits:
    """The frames without what is bad, which is added to ``problems``.

    Args:
        splits: all frames.
        parts: how to look at their files.
        problems: gets what is found.
        verify: read all of every file, not its header alone.
    """

    def look(frame: Frame) -> tuple[Frame | None, list[DataProblem]]:
        return _look(frame, parts, verify)

    good: Splits = {}
    for split, frames in splits.items():
        looked = in_parallel(look, frames)
        good[split] = [frame for frame, _ in looked if frame is not None]
        problems += [problem for _, found in looked for problem in found]
    return good


def _look(frame: Frame, parts: Parts, verify: bool) -> tuple[Frame | None, list[DataProblem]]:
    faults: dict[str, str] = {}
    size: tuple[int, int] | None = None
    for name, path in frame.files.items():  # the image comes first
        with noting(faults, name):
            found = parts[name].size(path)
            if size and found != size:
                raise DataError(
                    f"{path}: {described(found)} pixels, but its image "
                    f"{frame.files[IMAGE].name} has {described(size)}"
                )
            size = found if name == IMAGE else size
            if verify:
                parts[name].read(path)
    spoilt = IMAGE in faults
    problems = [
        DataProblem(text, sample=name == IMAGE, labels=() if spoilt else (name,))
        for name, text in faults.items()
    ]
    files = {name: path for name, path in frame.files.items() if name not in faults}
    return (None if spoilt else replace(frame, files=files)), problems


def describe(splits: Splits, targets: Mapping[str, TargetSpec], /) -> DatasetSpec:
    """What the frames have, of labels that may be there."""
    counted = {
        name: {split: sum(name in f.files for f in frames) for split, frames in splits.items()}
        for name in targets
    }
    return DatasetSpec(
        targets={
            name: replace(target, labelled=counted[name])
            for name, target in targets.items()
            if any(counted[name].values())
        },
        sizes={split: len(frames) for split, frames in splits.items()},
    )
