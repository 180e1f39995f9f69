"""The Oxford-IIIT Pet dataset, read from its original folders."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from mtlkit import DataError, DataProblem, Dataset, DatasetSpec, Sample, TargetSpec

from ._boxes import Box, box_fault, clipped, mask_extent, read_voc
from ._images import (
    Pixels,
    check_image,
    described,
    in_parallel,
    noting,
    read_image,
    read_mask,
)
from ._partial import Absent, absent, what_is_left, without
from ._pet_lists import Pet, breed_names, find_root, head_file, held_out, read_list
from ._samples import as_box, as_image, shuffled

SPECIES = ("cat", "dog")
IGNORED = 255
PET, BACKGROUND, BORDER = 1, 2, 3
Border = Literal["ignore", "pet", "background"]


class OxfordPets(Dataset):
    """Oxford-IIIT Pet: photographs of cats and dogs with mask, box, species and breed.

    ``seg`` is background or pet, ``bbox`` a box, ``species`` and ``breed`` classes, ``cls`` one of
    these two. Test is the official test split; train and val are parts of the official trainval,
    every breed in the same proportion. Breeds are those that the lists name, in the order of their
    original numbers: all 37 of the full dataset.

    Args:
        root: folder that holds ``oxford-iiit-pet/``, or that folder itself.
        classes: what ``cls`` is.
        border: what the trimap's rim between pet and background counts as.
        boxes: ``mask`` is the box of the pet's pixels; ``head`` the annotated box of the head,
            which no test picture and not every other one has.
        val_share: part of trainval kept for validation, in [0, 1).
        download: fetch the dataset into ``root`` when it is not there yet.
        verify: decode every file at the start, so that a broken one cannot end a run.
        on_bad: ``skip`` leaves out every sample or label whose file is missing or bad and counts
            them; a mistake in the lists is an error all the same.
        keep_labels: share of the training samples that keep a label, such as ``seg=0.1,cls=0.5``;
            labels not named stay whole.

    Raises:
        ValueError: ``val_share`` is outside [0, 1), or ``keep_labels`` names no label or no share.
        DataError: a file is missing, broken or contradicts another.

    Reference: Parkhi et al., "Cats and Dogs", CVPR 2012.
    """

    def __init__(
        self,
        *,
        root: Path,
        classes: Literal["species", "breed"] = "species",
        border: Border = "ignore",
        boxes: Literal["mask", "head"] = "mask",
        val_share: float = 0.2,
        download: bool = False,
        verify: bool = True,
        on_bad: Literal["raise", "skip"] = "raise",
        keep_labels: Mapping[str, float] | None = None,
    ) -> None:
        if not 0 <= val_share < 1:
            raise ValueError(f"val_share is a part of trainval in [0, 1), got {val_share}")
        self.classes = classes
        self.border = border
        self.boxes = boxes
        self.root = find_root(Path(root), download)
        self.verify = verify
        trainval, test = (read_list(self.root, name) for name in ("trainval", "test"))
        pets = {**trainval, **test}
        if len(pets) < len(trainval) + len(test):
            twice = min(trainval.keys() & test.keys())
            raise DataError(f"{self.root}: {twice} is in trainval.txt and in test.txt; remove one")
        self.breeds = breed_names(self.root, pets)
        looked = dict(zip(pets, in_parallel(self._look, pets.values()), strict=True))
        val = held_out(trainval, val_share)
        ids = {
            "train": shuffled(trainval.keys() - val),
            "val": shuffled(val),
            "test": shuffled(test),
        }
        good = {
            name: [(pet, box) for id in ids[name] for pet, box, _ in [looked[id]] if pet]
            for name in ids
        }
        self._splits = {name: [pet for pet, _ in split] for name, split in good.items()}
        spec = self._describe(
            {name: sum(has_box for _, has_box in split) for name, split in good.items()}
        )
        train = [pet.id for pet in self._splits["train"]]
        self._absent = absent(keep_labels or {}, train, spec.targets)
        self.spec = what_is_left(
            spec,
            self._absent,
            dict.fromkeys(spec.targets, train)
            | {
                "seg": [pet.id for pet, _ in good["train"] if pet.trimap is not None],
                "bbox": [pet.id for pet, has_box in good["train"] if has_box],
            },
        )
        problems = [problem for _, _, found in looked.values() for problem in found]
        self.set_aside(self.root, sorted(problems, key=lambda p: p.text), on_bad)

    def split(self, name: Literal["train", "val", "test"], /) -> "PetSamples":
        """The samples of one split."""
        order = {number: index for index, number in enumerate(self.breeds)}
        lost = self._absent if name == "train" else {}
        pets = self._splits[name]
        return PetSamples(pets, order, self.classes, self.border, self.boxes, absent=lost)

    def _look(self, pet: Pet) -> tuple[Pet | None, bool, list[DataProblem]]:
        """The pet with the good ones of its files, if any; whether it has a box; what is bad."""
        faults: dict[str, str] = {}
        size, found, head = None, None, None
        with noting(faults, "image"):
            size = self._size(pet)
        with noting(faults, "seg"):
            found = self._values(pet, size)
        with noting(faults, "bbox"):
            head = self._head(pet, size)
        problems = [
            DataProblem(text, sample=what == "image", labels=self._labels(what, "image" in faults))
            for what, text in faults.items()
        ]
        if "image" in faults:
            return None, False, problems
        good = replace(pet, head=head, trimap=None if "seg" in faults else pet.trimap)
        if self.boxes == "head":
            return good, head is not None, problems
        shown = found is None or bool((mask_table(self.border)[found] == 1).any())
        return good, shown and good.trimap is not None, problems

    def _labels(self, what: str, spoilt: bool) -> tuple[str, ...]:
        if spoilt:
            return ()
        return ("seg", "bbox") if what == "seg" and self.boxes == "mask" else (what,)

    def _size(self, pet: Pet) -> tuple[int, int] | None:
        if not pet.image.is_file():
            raise DataError(f"{pet.image}: missing")
        return check_image(pet.image) if self.verify else None

    def _values(self, pet: Pet, size: tuple[int, int] | None) -> NDArray[np.intp] | None:
        """The values in a trimap, unless nothing is verified."""
        assert pet.trimap is not None
        if not pet.trimap.is_file():
            raise DataError(f"{pet.trimap}: missing")
        if not self.verify:
            return None
        trimap = read_mask(pet.trimap)
        if size and trimap.shape != size:
            raise DataError(
                f"{pet.trimap}: {described(trimap.shape)} pixels, but its image {pet.image.name} "
                f"has {described(size)}"
            )
        found = np.flatnonzero(np.bincount(trimap.ravel(), minlength=256))
        if strange := set(found.tolist()) - {PET, BACKGROUND, BORDER}:
            raise DataError(
                f"{pet.trimap}: class id {min(strange)} is out of range; a trimap holds 1 (pet), "
                "2 (background) and 3 (border)"
            )
        return found

    def _head(self, pet: Pet, size: tuple[int, int] | None) -> Box | None:
        file = head_file(self.root, pet.id)
        if self.boxes != "head" or not file.is_file():
            return None
        head = read_voc(file)
        if head and size and (fault := box_fault(head, size)):
            raise DataError(f"{file}: {fault}")
        return head

    def _describe(self, with_box: dict[str, int]) -> DatasetSpec:
        sizes = {name: len(pets) for name, pets in self._splits.items()}
        with_mask = {
            name: sum(pet.trimap is not None for pet in pets) for name, pets in self._splits.items()
        }
        species = TargetSpec("class", classes=SPECIES, labelled=sizes)
        breed = TargetSpec("class", classes=tuple(self.breeds.values()), labelled=sizes)
        return DatasetSpec(
            targets={
                "seg": TargetSpec("mask", classes=("background", "pet"), labelled=with_mask),
                "cls": species if self.classes == "species" else breed,
                "bbox": TargetSpec("box", labelled=with_box),
                "species": species,
                "breed": breed,
            },
            sizes=sizes,
        )


@dataclass(frozen=True)
class PetSamples:
    """One split of :class:`OxfordPets`; ``order`` gives a breed's index by its original number."""

    pets: list[Pet]
    order: dict[int, int]
    classes: Literal["species", "breed"]
    border: Border
    boxes: Literal["mask", "head"]
    least: tuple[int, int] | None = None
    absent: Absent = field(default_factory=dict)

    def at_least(self, size: tuple[int, int], /) -> "PetSamples":
        """The same samples, with images that are large enough for that height and width."""
        return replace(self, least=size)

    def __len__(self) -> int:
        return len(self.pets)

    def __getitem__(self, index: int, /) -> Sample:
        pet = self.pets[index]
        photo = read_image(pet.image, self.least)
        species, breed = torch.tensor(pet.species), torch.tensor(self.order[pet.breed])
        sample: Sample = {
            "image": as_image(photo.pixels),
            "id": pet.id,
            "cls": species if self.classes == "species" else breed,
            "species": species,
            "breed": breed,
        }
        box = pet.head
        if pet.trimap is not None:
            mask = self._mask(pet.trimap, photo.size)
            sample["seg"] = tv_tensors.Mask(torch.from_numpy(photo.mask(mask)))
            box = mask_extent(mask == 1) if self.boxes == "mask" else box
        if box is not None:
            sample["bbox"] = as_box(clipped(box, photo.size), photo.pixels.shape, photo.step)
        return without(sample, self.absent)

    def _mask(self, file: Path, size: tuple[int, int]) -> Pixels:
        trimap = read_mask(file)
        if trimap.shape != size:
            raise DataError(
                f"{file}: {described(trimap.shape)} pixels, but its image has {described(size)}; "
                "replace it"
            )
        return mask_table(self.border)[trimap]


def mask_table(border: Border, /) -> Pixels:
    """Class of each trimap value [256]; what is no trimap value is not labelled."""
    table = np.full(256, IGNORED, dtype=np.uint8)
    table[PET], table[BACKGROUND] = 1, 0
    table[BORDER] = {"ignore": IGNORED, "pet": 1, "background": 0}[border]
    return table
