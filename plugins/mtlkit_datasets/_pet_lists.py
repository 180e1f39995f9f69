"""The lists of the Oxford-IIIT Pet dataset, and what follows from them."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from torchvision import datasets

from mtlkit import DataError

from ._boxes import Box
from ._samples import shuffled

FOLDER = "oxford-iiit-pet"
NUM_BREEDS = 37


@dataclass(frozen=True)
class Pet:
    """One line of the lists, with its files; ``trimap`` is None for a bad one."""

    id: str
    breed: int
    species: int
    image: Path
    trimap: Path | None
    head: Box | None = None


def find_root(root: Path, download: bool, /) -> Path:
    """The folder with ``images/`` and ``annotations/``."""
    places = (root, root / FOLDER)
    for place in places:
        if (place / "images").is_dir() and (place / "annotations").is_dir():
            return place
    if not download:
        raise DataError(
            f"{root}: holds neither images/ and annotations/ nor {FOLDER}/ with these; set "
            "--data.root to where the dataset is, or --data.download true to fetch it there"
        )
    try:
        datasets.OxfordIIITPet(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{root}: the dataset could not be downloaded ({error})") from error
    return places[1]


def read_list(root: Path, name: str, /) -> dict[str, Pet]:
    """The pictures that ``annotations/<name>.txt`` lists, by id."""
    path = root / "annotations" / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); restore it") from error
    pets: dict[str, Pet] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        pet = parse_line(root, line, f"{path}, line {number}")
        if pet.id in pets:
            raise DataError(f"{path}, line {number}: {pet.id} is listed twice; remove one line")
        pets[pet.id] = pet
    if not pets:
        raise DataError(f"{path}: lists no picture; restore it")
    return pets


def parse_line(root: Path, line: str, where: str, /) -> Pet:
    """One line: name, breed from 1 to 37, species 1 (cat) or 2 (dog), number in the species."""
    fields = line.split()
    if len(fields) != 4 or not all(field.isdecimal() for field in fields[1:]):
        raise DataError(f"{where}: '{line.strip()}' is not a name and three numbers; correct it")
    id, breed, species = fields[0], int(fields[1]), int(fields[2])
    if not 1 <= breed <= NUM_BREEDS:
        raise DataError(f"{where}: breed {breed} is out of range, 1 to {NUM_BREEDS}; correct it")
    if species not in (1, 2):
        raise DataError(f"{where}: species {species} is neither 1 (cat) nor 2 (dog); correct it")
    return Pet(
        id=id,
        breed=breed,
        species=species - 1,
        image=root / "images" / f"{id}.jpg",
        trimap=root / "annotations" / "trimaps" / f"{id}.png",
    )


def head_file(root: Path, id: str, /) -> Path:
    """Where the head's box of a picture is, if it has one."""
    return root / "annotations" / "xmls" / f"{id}.xml"


def breed_names(root: Path, pets: dict[str, Pet], /) -> dict[int, str]:
    """Names by original number, in its order; a picture's name is its breed's and a number."""
    names: dict[int, str] = {}
    for pet in pets.values():
        name = pet.id.rpartition("_")[0].replace("_", " ")
        if names.setdefault(pet.breed, name) != name:
            raise DataError(
                f"{root}: breed {pet.breed} is called '{names[pet.breed]}' and '{name}' in the "
                "lists; correct them"
            )
    return dict(sorted(names.items()))


def held_out(pets: dict[str, Pet], share: float, /) -> set[str]:
    """The part kept for validation, of each breed alike, whatever the order of the lists."""
    by_breed = defaultdict(list)
    for pet in pets.values():
        by_breed[pet.breed].append(pet.id)
    return {id for ids in by_breed.values() for id in shuffled(ids)[: round(share * len(ids))]}
