"""The Oxford-IIIT Pet dataset, read from its original folders."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torchvision import tv_tensors

from mtlkit import DataError, Dataset, DatasetSpec, Sample, TargetSpec

from ._boxes import box_fault, clipped, mask_extent, read_voc
from ._images import Pixels, check_all, check_image, described, read_image, read_mask
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

    Raises:
        ValueError: ``val_share`` is outside [0, 1).
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
    ) -> None:
        if not 0 <= val_share < 1:
            raise ValueError(f"val_share is a part of trainval in [0, 1), got {val_share}")
        self.classes = classes
        self.border = border
        self.boxes = boxes
        self.root = find_root(Path(root), download)
        trainval, test = (self._listed(name) for name in ("trainval", "test"))
        pets = {**trainval, **test}
        if len(pets) < len(trainval) + len(test):
            twice = min(trainval.keys() & test.keys())
            raise DataError(f"{self.root}: {twice} is in trainval.txt and in test.txt; remove one")
        self.breeds = breed_names(self.root, pets)
        has_box = dict.fromkeys(pets, True)
        if verify:
            has_box = dict(zip(pets, check_all(self.root, pets.values(), self._check), strict=True))
        if boxes == "head":
            has_box = {id: pet.head is not None for id, pet in pets.items()}
        val = held_out(trainval, val_share)
        self._splits = {
            "train": [trainval[id] for id in shuffled(trainval.keys() - val)],
            "val": [trainval[id] for id in shuffled(val)],
            "test": [test[id] for id in shuffled(test)],
        }
        self.spec = self._describe(has_box)

    def split(self, name: Literal["train", "val", "test"], /) -> "PetSamples":
        """The samples of one split."""
        order = {number: index for index, number in enumerate(self.breeds)}
        return PetSamples(self._splits[name], order, self.classes, self.border, self.boxes)

    def _listed(self, name: str) -> dict[str, Pet]:
        pets = read_list(self.root, name)
        if self.boxes == "mask":
            return pets
        return {pet.id: pet for pet in check_all(self.root, pets.values(), self._with_head)}

    def _with_head(self, pet: Pet) -> Pet:
        file = head_file(self.root, pet.id)
        return replace(pet, head=read_voc(file)) if file.is_file() else pet

    def _check(self, pet: Pet) -> bool:
        """Whether the trimap shows any pet."""
        size = check_image(pet.image)
        trimap = read_mask(pet.trimap)
        if trimap.shape != size:
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
        if pet.head and (fault := box_fault(pet.head, size)):
            raise DataError(f"{head_file(self.root, pet.id)}: {fault}")
        return bool((mask_table(self.border)[found] == 1).any())

    def _describe(self, has_box: dict[str, bool]) -> DatasetSpec:
        sizes = {name: len(pets) for name, pets in self._splits.items()}
        with_box = {
            name: sum(has_box[pet.id] for pet in pets) for name, pets in self._splits.items()
        }
        species = TargetSpec("class", classes=SPECIES, labelled=sizes)
        breed = TargetSpec("class", classes=tuple(self.breeds.values()), labelled=sizes)
        return DatasetSpec(
            targets={
                "seg": TargetSpec("mask", classes=("background", "pet"), labelled=sizes),
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

    def __len__(self) -> int:
        return len(self.pets)

    def __getitem__(self, index: int, /) -> Sample:
        pet = self.pets[index]
        pixels, trimap = read_image(pet.image), read_mask(pet.trimap)
        if trimap.shape != pixels.shape[:2]:
            raise DataError(
                f"{pet.trimap}: {described(trimap.shape)} pixels, but its image has "
                f"{described(pixels.shape)}; replace it"
            )
        mask = mask_table(self.border)[trimap]
        species, breed = torch.tensor(pet.species), torch.tensor(self.order[pet.breed])
        sample: Sample = {
            "image": as_image(pixels),
            "id": pet.id,
            "seg": tv_tensors.Mask(torch.from_numpy(mask)),
            "cls": species if self.classes == "species" else breed,
            "species": species,
            "breed": breed,
        }
        box = mask_extent(mask == 1) if self.boxes == "mask" else pet.head
        if box is not None:
            sample["bbox"] = as_box(clipped(box, trimap.shape), trimap.shape)
        return sample


def mask_table(border: Border, /) -> Pixels:
    """Class of each trimap value [256]; what is no trimap value is not labelled."""
    table = np.full(256, IGNORED, dtype=np.uint8)
    table[PET], table[BACKGROUND] = 1, 0
    table[BORDER] = {"ignore": IGNORED, "pet": 1, "background": 0}[border]
    return table
