"""Every check of datasets finds its fault."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import fault, own_checks
from torchvision import tv_tensors

from mtlkit import DataError, Dataset, DatasetSpec, TargetSpec
from mtlkit.testing import check_dataset, conformance

HEIGHT, WIDTH = 20, 30
SIZES = {"train": 4, "val": 2, "test": 2}


@dataclass
class Samples:
    name: str
    change: Any = None

    def __len__(self):
        return SIZES[self.name]

    def __getitem__(self, index):
        numbers = torch.Generator().manual_seed(1000 * len(self.name) + index)
        box = torch.tensor([[2.0, 3.0, 9.0, 12.0]])
        sample = {
            "image": tv_tensors.Image(
                torch.randint(0, 256, (3, HEIGHT, WIDTH), generator=numbers, dtype=torch.uint8)
            ),
            "id": f"{self.name}{index}",
            "seg": tv_tensors.Mask(
                torch.randint(0, 2, (HEIGHT, WIDTH), generator=numbers, dtype=torch.uint8)
            ),
            "cls": torch.tensor(index % 2),
            "bbox": tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(HEIGHT, WIDTH)),
            "depth": tv_tensors.Mask(torch.rand(1, HEIGHT, WIDTH, generator=numbers)),
            "pose": torch.rand(4, generator=numbers),
        }
        if index == 1:
            del sample["cls"]
        return self.change(sample) if self.change else sample


class Right(Dataset):
    """A few random pictures with a label of every kind."""

    change: Any = None
    image_size = 32

    def __init__(self):
        fewer = {split: number - 1 for split, number in SIZES.items()}
        self.spec = DatasetSpec(
            {
                "seg": TargetSpec("mask", ("ground", "thing"), labelled=SIZES),
                "cls": TargetSpec("class", ("cat", "dog"), labelled=fewer),
                "bbox": TargetSpec("box", labelled=SIZES),
                "depth": TargetSpec("map", channels=1, quantity="distance", labelled=SIZES),
                "pose": TargetSpec("vector", channels=4, labelled=SIZES),
            },
            SIZES,
        )

    def split(self, name, /):
        return Samples(name, type(self).change)


class Folder(Right):
    """Pictures of a list.

    Args:
        root: folder with list.txt.
    """

    def __init__(self, *, root: Path):
        super().__init__()
        if not (Path(root) / "list.txt").exists():
            raise DataError(f"{root} has no list.txt")


class Trusting(Folder):
    def __init__(self, *, root: Path):
        Right.__init__(self)


class Silent(Folder):
    def __init__(self, *, root: Path):
        Right.__init__(self)
        (Path(root) / "list.txt").read_text()


class OtherSide(Right):
    image_size = "large"


class OtherSizes(Right):
    def __init__(self):
        super().__init__()
        self.spec = DatasetSpec(self.spec.targets, {**SIZES, "val": 3})


@dataclass
class HalfSamples(Samples):
    half: bool = False
    labels_too: bool = False

    def at_least(self, size, /):
        return replace(self, half=True)

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        if self.half:
            alike = [key for key in ("image", "seg", "depth") if key == "image" or self.labels_too]
            halves = {key: tv_tensors.wrap(sample[key][..., ::2, ::2], like=sample[key])
                      for key in alike}  # fmt: skip
            sample |= halves
        return sample


class Halved(Right):
    def split(self, name, /):
        return HalfSamples(name)


class HalvedWithoutBoxes(Right):
    def split(self, name, /):
        return HalfSamples(name, labels_too=True)


def wrong(change: Any) -> type[Right]:
    return type("Wrong", (Right,), {"change": staticmethod(change)})


def integers(sample):
    box = sample["bbox"].long()
    boxes = tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(HEIGHT, WIDTH))
    return {**sample, "bbox": boxes}


def outside(sample):
    box = sample["bbox"] + 25
    boxes = tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(HEIGHT, WIDTH))
    return {**sample, "bbox": boxes}


def one_name(sample):
    return {**sample, "id": "picture"}


def unlabelled(sample):
    return {key: value for key, value in sample.items() if key != "seg"}


def noisy(sample):
    return {**sample, "pose": torch.rand(4)}


def longer(sample):
    return {**sample, "pose": torch.zeros(4 + len(sample["id"]) % 2)}


def absent_as_none(sample):
    return {**sample, "cls": None}


def negative(sample):
    return {**sample, "depth": tv_tensors.Mask(-sample["depth"].as_subclass(torch.Tensor))}


def described(**changes: Any) -> type[Right]:
    """Right but for the spec of its depth."""

    def init(self):
        Right.__init__(self)
        spec = replace(self.spec.targets["depth"], **changes)
        self.spec = DatasetSpec({**self.spec.targets, "depth": spec}, SIZES)

    return type("Wrong", (Right,), {"__init__": init})


def third_class(sample):
    return {**sample, "cls": torch.tensor(2)}


def unknown(sample):
    return {**sample, "weather": torch.tensor(1)}


def plain_image(sample):
    return {**sample, "image": sample["image"].as_subclass(torch.Tensor)}


SPEC = "it describes its labels and splits"
TYPES = "samples have the documented types"
SMALLER = "smaller images fit their labels"
MISSING = "it says what is missing"
WRONG = {
    "it describes its labels and splits": (
        OtherSizes,
        "spec.sizes has 3 samples of val, but len() is 2",
    ),
    TYPES: (
        wrong(integers),
        "'bbox' of sample 0 of train is int64 [1, 4], not float32 [1, 4]",
    ),
    "ids are unique in their split": (wrong(one_name), "several samples of train are called"),
    "labels are where the spec says": (
        wrong(unlabelled),
        "'seg' is said to be in 4 samples of train, and is in 0",
    ),
    "a sample is the same whenever it is read": (
        wrong(noisy),
        "reading samples used torch's global random numbers",
    ),
    "samples travel to worker processes": (
        wrong(lambda sample: sample),
        "the samples of train cannot be pickled: ",
    ),
    "samples are put into batches": (
        wrong(lambda sample: {**sample, "pose": torch.rand(int(sample["id"][-1]) + 1)}),
        "stack expects each tensor to be equal size",
    ),
    SMALLER: (
        Halved,
        "'bbox' of sample 0 of train, at least (10, 15), is in an image of (20, 30), not",
    ),
    MISSING: (Trusting, "with root = a path that is not there it is built as if nothing"),
}


def options(dataset: type, folder: Path) -> dict[str, Any]:
    (folder / "list.txt").touch()
    return {"root": folder} if issubclass(dataset, Folder) else {}


def test_every_check_has_a_wrong_dataset() -> None:
    assert set(WRONG) == own_checks("dataset")


def test_a_right_dataset_passes_every_check(tmp_path: Path) -> None:
    check_dataset(Folder, **options(Folder, tmp_path))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_dataset_is_found(name: str, tmp_path: Path) -> None:
    dataset, text = WRONG[name]
    assert text in fault("dataset", name, dataset, **options(dataset, tmp_path))


@pytest.mark.parametrize(
    ("dataset", "name", "text"),
    [
        (wrong(outside), TYPES, "'bbox' of sample 0 of train is [27.0, 28.0, 34.0, 37.0], not"),
        (wrong(absent_as_none), TYPES, "'cls' of sample 0 of train is None; leave the key out"),
        (wrong(third_class), TYPES, "'cls' of sample 0 of train has the class [2], and spec 2"),
        (wrong(unknown), TYPES, "sample 0 of train has 'weather', which is not in spec.targets"),
        (wrong(plain_image), TYPES, "the image of sample 0 of train is a Tensor"),
        (wrong(longer), TYPES, "'pose' of sample 0 of test is float32 [5], not float32 [4]"),
        (wrong(negative), TYPES, "'depth' of sample 0 of train is -0."),
        (described(quantity="height"), SPEC, "label 'depth' has the unknown quantity 'height'"),
        (described(quantity="direction"), SPEC, "'depth' has 1 channels, and direction has 3"),
        (OtherSide, SPEC, "image size must be like 128 or 96x128 (height, width), not 'large'"),
        (HalvedWithoutBoxes, SMALLER, "'bbox' of sample 0 of train, at least (10, 15), is in an"),
        (Silent, MISSING, "with root = a path that is not there it raises FileNotFoundError"),
    ],
)
def test_another_wrong_dataset_is_found(
    dataset: type, name: str, text: str, tmp_path: Path
) -> None:
    assert text in fault("dataset", name, dataset, **options(dataset, tmp_path))


def test_a_dataset_without_a_path_has_nothing_to_miss() -> None:
    check = next(check for check in conformance.checks("dataset") if check.name == MISSING)
    outcome = conformance.run(check, conformance.subject("dataset", Right, {}))
    assert str(outcome) == f"{MISSING}: it was given no path to read from"
    assert outcome.status == "not applicable"
