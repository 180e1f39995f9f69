"""Checks of datasets."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset
from torchvision import tv_tensors

from mtlkit.build import parse_image_size
from mtlkit.data import (
    SPLITS,
    Dataset,
    Kind,
    Quantity,
    ReducibleSamples,
    Sample,
    TargetSpec,
    map_fault,
)
from mtlkit.errors import MtlkitError
from mtlkit.loader import Key, Prepared
from mtlkit.options import option_types
from mtlkit.testing.compare import finite, no_global_random_numbers
from mtlkit.testing.conformance import Checks, Fault, NotApplicable, Subject, expect

BASE = Dataset
CHECKS = Checks()
MOST = 8
"""Samples of each split that are looked at."""
COUNTED = 64
"""Samples up to which a split's labels are counted."""


def given(subject: Subject) -> tuple[Any, ...]:
    """What the framework gives to a dataset: nothing."""
    return ()


@CHECKS.add(
    why="Tasks are built for what the spec says, before any sample is read.",
    mend="Set self.spec = DatasetSpec({label: TargetSpec(kind, classes=...)}, {split: size}) in "
    "the constructor, with the sizes of train, val and test.",
)
def _it_describes_its_labels_and_splits(subject: Subject) -> None:
    dataset: Dataset = subject.build()
    for name, spec in dataset.spec.targets.items():
        expect(spec.kind in get_args(Kind), f"label '{name}' is of the unknown kind {spec.kind!r}")
        nameless = spec.kind in ("mask", "class") and len(spec.classes) < 2
        expect(not nameless, f"label '{name}' of kind {spec.kind} has the classes {spec.classes}")
        expect(name not in ("image", "id"), f"no label may be called '{name}'")
        known = spec.quantity in get_args(Quantity)
        expect(known, f"label '{name}' has the unknown quantity {spec.quantity!r}")
        wanted = {"plain": spec.channels, "direction": 3}.get(spec.quantity, 1)
        fault = f"label '{name}' has {spec.channels} channels, and {spec.quantity} has {wanted}"
        expect(spec.channels == wanted, fault)
        for split, number in spec.labelled.items():
            size = dataset.spec.sizes.get(split, 0)
            fault = f"'{name}' is said to be in {number} of the {size} samples of {split}"
            expect(number <= size, fault)
    missing = [split for split in SPLITS if split not in dataset.spec.sizes]
    expect(not missing, f"spec.sizes lacks {', '.join(missing)}")
    for split in SPLITS:
        size, length = dataset.spec.sizes[split], len(dataset.split(split))
        expect(size == length, f"spec.sizes has {size} samples of {split}, but len() is {length}")
    expect(dataset.spec.sizes["train"] > 0, "there is no sample to train on")
    parse_image_size(dataset.image_size)


@CHECKS.add(
    why="Geometry, batches and drawing rely on the types, and do something else with others.",
    mend="Return what the docstring of mtlkit.Dataset says: tv_tensors of its dtypes and shapes; "
    "leave out the key of a label that is missing.",
)
def _samples_have_the_documented_types(subject: Subject) -> None:
    dataset: Dataset = subject.build()
    for where, sample in _samples(dataset):
        _check_image(where, sample)
        size = (sample["image"].shape[-2], sample["image"].shape[-1])
        for name in sorted(sample.keys() - {"image", "id"}):
            known = dataset.spec.targets.get(name)
            if known is None:
                raise Fault(f"{where} has '{name}', which is not in spec.targets")
            _check_label(f"'{name}' of {where}", sample[name], known, size)


@CHECKS.add(
    why="Shuffling, augmentation and noise are drawn from the ids, and pictures are named by them.",
    mend="Make ids from what a sample is, such as its file's name, never from a counter over all.",
)
def _ids_are_unique_in_their_split(subject: Subject) -> None:
    dataset: Dataset = subject.build()
    for split in SPLITS:
        samples = dataset.split(split)
        ids = [samples[index]["id"] for index in range(min(len(samples), COUNTED))]
        twice = sorted({str(id) for id in ids if ids.count(id) > 1})
        expect(not twice, f"several samples of {split} are called {', '.join(twice[:3])}")


@CHECKS.add(
    why="Tasks without labels in a split are reported so, and balanced by these numbers.",
    mend="Count, in TargetSpec.labelled, the samples of each split that have the label.",
)
def _labels_are_where_the_spec_says(subject: Subject) -> None:
    dataset: Dataset = subject.build()
    for split in SPLITS:
        samples = dataset.split(split)
        if len(samples) > COUNTED:
            continue
        keys = [samples[index].keys() for index in range(len(samples))]
        for name, spec in dataset.spec.targets.items():
            found, said = sum(name in k for k in keys), spec.labelled.get(split)
            expect(said is None or found == said, f"'{name}' is said to be in {said} samples of "
                                                  f"{split}, and is in {found}")  # fmt: skip


@CHECKS.add(
    why="Runs are repeated and resumed; workers and processes read the same samples in any order.",
    mend="Derive what is random in a sample from a seed, its split and index alone, with a "
    "generator of its own.",
)
def _a_sample_is_the_same_whenever_it_is_read(subject: Subject) -> None:
    dataset: Dataset = subject.build()
    first = dict(_samples(dataset))
    torch.manual_seed(1)
    with no_global_random_numbers("reading samples"):
        again = dict(reversed(list(_samples(subject.build()))))
    for where, sample in first.items():
        _check_same(f"{where}, read again in another order,", again[where], sample)


@CHECKS.add(
    why="Samples are read in worker processes, which on some systems start afresh.",
    mend="Let split() return an object of a class at the top of a module that holds paths and "
    "numbers; open files in __getitem__.",
)
def _samples_travel_to_worker_processes(subject: Subject) -> None:
    dataset: Dataset = subject.build()
    parts: list[Any] = []
    for split in SPLITS:
        samples = dataset.split(split)
        try:
            pickle.dumps(samples)
        except Exception as error:
            raise Fault(f"the samples of {split} cannot be pickled: {error}") from None
        if len(samples):
            parts.append(Subset(samples, range(min(len(samples), 2))))  # type: ignore[arg-type]
    together: ConcatDataset[Sample] = ConcatDataset(parts)
    loader = DataLoader(
        together, batch_size=None, num_workers=1, multiprocessing_context="spawn",
        generator=torch.Generator(),
    )  # fmt: skip
    for index, theirs in enumerate(loader):
        _check_same("a sample that a worker process read", theirs, together[index])


@CHECKS.add(
    why="Images and labels are resized together and put into batches.",
    mend="See the check of samples' types: boxes and masks must be in the pixels of their image.",
)
def _samples_are_put_into_batches(subject: Subject) -> None:
    dataset: Dataset = subject.build()
    size = (32, 48)
    for split in SPLITS:
        samples = dataset.split(split)
        prepared = Prepared(samples, dataset.spec.targets, size, augment="light")
        number = min(len(samples), MOST)
        if not number:
            continue
        batch = prepared.collate([prepared[Key(0, index, True)] for index in range(number)])
        shape = tuple(batch["image"].shape)
        expect(shape == (number, 3, *size), f"images of {split} make a batch {shape}")
        for name, values in batch["targets"].items():
            expect(len(values) == number, f"'{name}' of a batch of {split} has the wrong length")
            good = not values.is_floating_point() or finite(values)
            expect(good, f"'{name}' of a batch of {split} is not finite")


@CHECKS.add(
    why="A run says by at_least() which height and width it needs, and uses what it then gets.",
    mend="Make image, masks and boxes of a sample smaller alike, and none smaller than asked for.",
)
def _smaller_images_fit_their_labels(subject: Subject) -> None:
    dataset: Dataset = subject.build()
    reducible = [split for split in SPLITS if isinstance(dataset.split(split), ReducibleSamples)]
    if not reducible:
        raise NotApplicable("its samples have no at_least()")
    for split in reducible:
        samples = dataset.split(split)
        assert isinstance(samples, ReducibleSamples)
        for index in range(min(len(samples), MOST)):
            whole = samples[index]
            height, width = whole["image"].shape[-2:]
            least = (max(1, height // 2), max(1, width // 2))
            where = f"sample {index} of {split}, at least {least},"
            _check_smaller(where, samples.at_least(least)[index], whole, least, dataset)


def _check_smaller(
    where: str, sample: Sample, whole: Sample, least: tuple[int, int], dataset: Dataset
) -> None:
    _check_image(where, sample)
    size, full = (tuple(s["image"].shape[-2:]) for s in (sample, whole))
    fits = all(a <= b <= c for a, b, c in zip(least, size, full, strict=True))
    expect(fits, f"the image of {where} has {size} pixels, and {full} in full")
    expect(sample["id"] == whole["id"], f"{where} has another id, {sample['id']}")
    same = sample.keys() == whole.keys()
    expect(same, f"{where} has {sorted(sample)}, and {sorted(whole)} in full")
    for name in sorted(sample.keys() - {"image", "id"}):
        spec = dataset.spec.targets[name]
        _check_label(f"'{name}' of {where}", sample[name], spec, (size[0], size[1]))
        if spec.kind == "box":
            box, other = sample[name][0].tolist(), whole[name][0].tolist()
            scale = [side / was for side, was in zip(size, full, strict=True)][::-1] * 2
            moved = max(abs(a - b * by) for a, b, by in zip(box, other, scale, strict=True))
            expect(moved <= 1, f"'{name}' of {where} is {box}, which is {other} in full")


@CHECKS.add(
    why="A wrong path is the most common mistake; it must not show as an error inside a worker.",
    mend="Look for everything in the constructor, and raise mtlkit.DataError with the path and "
    "what was expected there.",
)
def _it_says_what_is_missing(subject: Subject) -> None:
    types = option_types(subject.cls)
    paths = [name for name, value in subject.options.items()
             if Path in (types.get(name), *get_args(types.get(name))) and value]  # fmt: skip
    if not paths:
        raise NotApplicable("it was given no path to read from")
    with TemporaryDirectory() as folder:
        for name in paths:
            for place in (Path(folder) / "nowhere", Path(folder)):
                _check_refused(subject, name, place)


def _check_refused(subject: Subject, option: str, place: Path) -> None:
    what = f"with {option} = {'an empty folder' if place.exists() else 'a path that is not there'}"
    try:
        subject.build(**{option: place})
    except (MtlkitError, ValueError) as error:
        expect(place.name in str(error), f"{what} the error does not name the path: {error}")
        return
    except Exception as error:
        raise Fault(f"{what} it raises {type(error).__name__}: {error}") from None
    raise Fault(f"{what} it is built as if nothing were missing")


def _samples(dataset: Dataset) -> Iterator[tuple[str, Sample]]:
    """The first few of each split, with a description."""
    for split in SPLITS:
        samples = dataset.split(split)
        for index in range(min(len(samples), MOST)):
            yield f"sample {index} of {split}", samples[index]


def _check_image(where: str, sample: Sample) -> None:
    for name in ("image", "id"):
        expect(name in sample, f"{where} has no '{name}'")
    image = sample["image"]
    expect(isinstance(sample["id"], str), f"the id of {where} is {sample['id']!r}, not text")
    expect(isinstance(image, tv_tensors.Image), f"the image of {where} is a {_type(image)}")
    good = image.dtype == torch.uint8 and image.ndim == 3 and len(image) == 3
    expect(good, f"the image of {where} is {image.dtype} {tuple(image.shape)}, not uint8 [3, H, W]")


def _check_label(what: str, value: Any, spec: TargetSpec, size: tuple[int, int]) -> None:
    expect(value is not None, f"{what} is None; leave the key out")
    wanted, dtypes, shape = {
        "mask": (tv_tensors.Mask, (torch.uint8, torch.int64), size),
        "class": (Tensor, (torch.int64,), ()),
        "box": (tv_tensors.BoundingBoxes, (torch.float32,), (1, 4)),
        "map": (tv_tensors.Mask, (torch.float32,), (spec.channels, *size)),
        "vector": (Tensor, (torch.float32,), (spec.channels,)),
    }[spec.kind]
    expect(isinstance(value, wanted), f"{what} is a {_type(value)}, not a {wanted.__name__}")
    good = value.dtype in dtypes and tuple(value.shape) == shape
    names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    found = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    expect(good, f"{what} is {found}, not {names} {list(shape)}")
    if spec.kind == "box":
        _check_box(what, value, size)
    elif spec.kind in ("mask", "class"):
        _check_classes(what, value.as_subclass(Tensor), spec)
    else:
        fault = map_fault(value.as_subclass(Tensor), spec.quantity)
        expect(fault is None, f"{what} {fault}")


def _check_box(what: str, box: tv_tensors.BoundingBoxes, size: tuple[int, int]) -> None:
    expect(box.format is tv_tensors.BoundingBoxFormat.XYXY, f"{what} is in the form {box.format}")
    expect(box.canvas_size == size, f"{what} is in an image of {box.canvas_size}, not of {size}")
    x1, y1, x2, y2 = box[0].tolist()
    inside = 0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]
    expect(inside, f"{what} is {[x1, y1, x2, y2]}, not ordered corners inside of {size}")


def _check_classes(what: str, value: Tensor, spec: TargetSpec) -> None:
    ids = set(value.flatten().tolist()) - ({spec.ignore_index} if spec.kind == "mask" else set())
    strange = [id for id in sorted(ids) if not 0 <= id < len(spec.classes)]
    expect(not strange, f"{what} has the class {strange[:1]}, and spec {len(spec.classes)} classes")


def _check_same(what: str, found: Sample, expected: Sample) -> None:
    expect(found.keys() == expected.keys(), f"{what} has {sorted(found)}, not {sorted(expected)}")
    for name, value in expected.items():
        other = found[name]
        fault = f"'{name}' of {what} is a {_type(other)}, not a {_type(value)}"
        expect(type(other) is type(value), fault)
        same = torch.equal(other, value) if isinstance(value, Tensor) else other == value
        expect(same, f"'{name}' of {what} is another")


def _type(value: Any) -> str:
    return type(value).__name__
