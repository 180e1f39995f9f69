import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import BOX, HEIGHT, WIDTH, make_pets, mask_of, save, table, truncate, voc
from mtlkit_datasets.oxford_pets import OxfordPets
from PIL import Image
from torchvision import datasets, tv_tensors

from mtlkit import DataError

SPLITS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path):
    return make_pets(tmp_path)


def files(root):
    return root / "oxford-iiit-pet"


def test_the_splits_are_official_and_val_is_a_part_of_trainval(root):
    pets = OxfordPets(root=root)
    assert pets.spec.sizes == {"train": 12, "val": 3, "test": 15}
    ids = {name: set(table(pets.split(name))) for name in SPLITS}
    assert not ids["train"] & ids["val"]
    for name, split in (("trainval", ids["train"] | ids["val"]), ("test", ids["test"])):
        listed = (files(root) / "annotations" / f"{name}.txt").read_text().splitlines()
        assert split == {line.split()[0] for line in listed}


def test_every_breed_has_its_share_of_val(root):
    breeds = [
        int(s["breed"]) for s in table(OxfordPets(root=root, val_share=0.4).split("val")).values()
    ]
    assert sorted(breeds) == [0, 0, 1, 1, 2, 2]


def test_splits_do_not_depend_on_the_order_of_the_lists(root):
    before = [sample["id"] for sample in OxfordPets(root=root).split("train")]
    path = files(root) / "annotations" / "trainval.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert [sample["id"] for sample in OxfordPets(root=root).split("train")] == before


def test_root_may_be_the_folder_itself(root):
    assert (
        table(OxfordPets(root=files(root)).split("val")).keys()
        == table(OxfordPets(root=root).split("val")).keys()
    )


def test_a_sample_is_what_the_contract_says(root):
    sample = OxfordPets(root=root).split("train")[0]
    assert isinstance(sample["image"], tv_tensors.Image)
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].shape == (3, HEIGHT, WIDTH)
    assert isinstance(sample["seg"], tv_tensors.Mask)
    assert sample["seg"].dtype == torch.uint8
    assert sample["bbox"].dtype == torch.float32
    assert sample["bbox"].canvas_size == (HEIGHT, WIDTH)
    assert sample["cls"].dtype == torch.int64


def test_species_and_breed_are_there_and_cls_is_one_of_them(root):
    for choice in ("species", "breed"):
        pets = OxfordPets(root=root, classes=choice)
        assert pets.spec.targets["species"].classes == ("cat", "dog")
        assert pets.spec.targets["breed"].classes == ("Abyssinian", "american bulldog", "Bengal")
        assert pets.spec.targets["cls"] == pets.spec.targets[choice]
        for id, sample in table(pets.split("test")).items():
            assert sample["cls"] == sample[choice]
            assert sample["species"] == id.startswith("american")
            assert pets.spec.targets["breed"].classes[sample["breed"]] == id.rpartition("_")[
                0
            ].replace("_", " ")


@pytest.mark.parametrize(
    ("border", "rim", "box"),
    [("ignore", 255, BOX), ("background", 0, BOX), ("pet", 1, (3, 2, 13, 12))],
)
def test_the_border_counts_as_chosen_in_mask_and_box(root, border, rim, box):
    sample = OxfordPets(root=root, border=border).split("train")[0]
    expected = mask_of(rim, 0, (3, 2, 13, 12))
    expected[3:11, 4:12] = 1
    np.testing.assert_array_equal(sample["seg"].numpy(), expected)
    assert sample["bbox"].tolist() == [list(box)]


def test_a_head_is_the_largest_box_and_absent_where_there_is_none(root):
    pets = OxfordPets(root=root, boxes="head")
    assert sum(pets.spec.targets["bbox"].labelled.values()) == 12
    assert pets.spec.targets["bbox"].labelled["test"] == 0
    for name in SPLITS:
        for id, sample in table(pets.split(name)).items():
            has = name != "test" and not id.endswith("_0")
            assert ("bbox" in sample) == has
            if has:
                assert sample["bbox"].tolist() == [[4, 3, 8, 9]]


def test_a_trimap_without_a_pet_gives_no_box(root):
    save(files(root) / "annotations/trimaps/Bengal_7.png", mask_of(2, 2))
    pets = OxfordPets(root=root)
    assert pets.spec.targets["bbox"].labelled["test"] == 14
    assert "bbox" not in table(pets.split("test"))["Bengal_7"]


def breaks(root, relative, how):
    path = files(root) / relative
    if callable(how):
        how(path)
    elif how is None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif isinstance(how, str):
        path.write_text(how)
    else:
        save(path, how)


LIST = "annotations/trainval.txt"
TRIMAP = "annotations/trimaps/Bengal_1.png"
HEAD = "annotations/xmls/Bengal_1.xml"


@pytest.mark.parametrize(
    ("relative", "how", "message"),
    [
        ("images", None, r"holds neither images/ and annotations/ nor oxford-iiit-pet/"),
        ("images/Bengal_1.jpg", None, r"1 problem in .*: images/Bengal_1\.jpg: missing"),
        (TRIMAP, None, r"annotations/trimaps/Bengal_1\.png: missing\. Mend"),
        ("images/Bengal_1.jpg", truncate, r"images/Bengal_1\.jpg: cannot be decoded"),
        (TRIMAP, truncate, r"trimaps/Bengal_1\.png: cannot be decoded"),
        (TRIMAP, mask_of(1, 2, height=9), r"Bengal_1\.png: 24x9 pixels, but .* has 24x16"),
        (TRIMAP, mask_of(4, 2), r"Bengal_1\.png: class id 4 is out of range; a trimap holds 1"),
        (HEAD, voc((1, 1, 40, 9)), r"Bengal_1\.xml: box .* reaches out of its image of 24x16"),
        (HEAD, voc((9, 1, 4, 9)), r"Bengal_1\.xml: box .* is empty or inverted"),
        (HEAD, "<a>", r"1 problem in .*Bengal_1\.xml: not readable as XML"),
        (LIST, None, r"trainval\.txt: cannot be read"),
        (LIST, "\n", r"trainval\.txt: lists no picture"),
        (LIST, "Bengal_1 6 1", r"trainval\.txt, line 1: 'Bengal_1 6 1' is not a name and three"),
        (LIST, "Bengal_1 six 1 1", "is not a name and three numbers; correct it"),
        (LIST, "Bengal_1 38 1 1", r"line 1: breed 38 is out of range, 1 to 37"),
        (LIST, "Bengal_1 6 3 1", r"species 3 is neither 1 \(cat\) nor 2 \(dog\)"),
        (LIST, "Bengal_1 6 1 1\nBengal_1 6 1 1", "line 2: Bengal_1 is listed twice"),
        (LIST, "Bengal_7 6 1 1", r"Bengal_7 is in trainval\.txt and in test\.txt"),
        (LIST, "Bengal_1 1 1 1", "breed 1 is called 'Bengal' and 'Abyssinian' in the lists"),
    ],
)
def test_what_is_wrong_is_named_at_the_start(root, relative, how, message):
    breaks(root, relative, how)
    with pytest.raises(DataError, match=message) as caught:
        OxfordPets(root=root, boxes="head")
    assert "\n" not in str(caught.value)


def test_without_verifying_a_bad_file_is_named_when_it_is_read(root):
    truncate(files(root) / "images/Bengal_7.jpg")
    save(files(root) / "annotations/trimaps/Bengal_8.png", mask_of(1, 2, height=9))
    samples = OxfordPets(root=root, verify=False).split("test")
    index = {pet.id: number for number, pet in enumerate(samples.pets)}
    with pytest.raises(DataError, match=r"Bengal_7\.jpg: cannot be decoded"):
        samples[index["Bengal_7"]]
    with pytest.raises(DataError, match=r"Bengal_8\.png: 24x9 pixels, but its image has 24x16"):
        samples[index["Bengal_8"]]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(root, share):
    with pytest.raises(ValueError, match=r"val_share is a part of trainval in \[0, 1\), got"):
        OxfordPets(root=root, val_share=share)


def test_download_is_asked_of_torchvision_only_when_nothing_is_there(tmp_path, monkeypatch):
    asked = []

    def fetch(root, download):
        asked.append((root, download))
        make_pets(Path(root))

    monkeypatch.setattr(datasets, "OxfordIIITPet", fetch)
    for _ in range(2):
        assert OxfordPets(root=tmp_path, download=True).spec.sizes["test"] == 15
    assert asked == [(str(tmp_path), True)]


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fetch(root, download):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "OxfordIIITPet", fetch)
    with pytest.raises(DataError, match=r"could not be downloaded \(no route to host\)"):
        OxfordPets(root=tmp_path, download=True)


def test_labels_are_taken_away_and_counted(root):
    whole = OxfordPets(root=root, boxes="head")
    boxes = whole.spec.targets["bbox"].labelled["train"]
    pets = OxfordPets(root=root, boxes="head", keep_labels={"seg": 0.5, "bbox": 0.5})
    samples = table(pets.split("train").at_least((8, 8)))
    number = len(samples)
    assert sum("seg" in sample for sample in samples.values()) == round(0.5 * number)
    labelled = pets.spec.targets["bbox"].labelled["train"]
    assert sum("bbox" in sample for sample in samples.values()) == labelled < boxes
    assert pets.spec.targets["seg"].labelled["train"] == round(0.5 * number)
    assert pets.spec.targets["seg"].labelled["test"] == len(pets.split("test"))


@pytest.fixture(scope="module")
def real():
    folder = os.environ.get("MTLKIT_TEST_DATA")
    if not folder or not (Path(folder) / "oxford-iiit-pet").is_dir():
        pytest.skip("MTLKIT_TEST_DATA does not name a folder that holds oxford-iiit-pet/")
    return Path(folder)


def test_the_real_pets_are_counted_rightly(real):
    pets = OxfordPets(root=real, boxes="head", classes="breed")
    assert pets.spec.sizes == {"train": 240, "val": 60, "test": 298}
    assert pets.spec.targets["cls"].classes == ("Abyssinian", "american bulldog", "Bengal")
    boxes = pets.spec.targets["bbox"].labelled
    assert boxes["train"] + boxes["val"] == 296
    assert boxes["test"] == 0
    breeds = [pet.breed for pet in pets.split("val").pets]
    assert [breeds.count(number) for number in (1, 2, 6)] == [20, 20, 20]
    assert {(pet.breed, pet.species) for pet in pets.split("test").pets} == {(1, 0), (2, 1), (6, 0)}
    assert OxfordPets(root=real).spec.targets["bbox"].labelled == pets.spec.sizes


def test_the_larger_of_two_real_heads_counts(real):
    pets = OxfordPets(root=real, boxes="head", verify=False)
    heads = {pet.id: pet.head for name in SPLITS for pet in pets.split(name).pets}
    assert heads["Bengal_105"] == (26, 68, 61, 92)
    assert heads["Abyssinian_104"] is None


@pytest.mark.parametrize(("split", "theirs"), [("test", "test"), ("val", "trainval")])
def test_real_pets_are_what_torchvision_reads(real, split, theirs):
    reference = datasets.OxfordIIITPet(
        str(real), split=theirs, target_types=["category", "binary-category", "segmentation"]
    )
    where = {path.stem: index for index, path in enumerate(reference._images)}
    pets = OxfordPets(root=real, border="pet", verify=False)
    ours = pets.split(split)
    for index in range(0, len(ours), 7):
        sample = ours[index]
        image, (breed, species, trimap) = reference[where[sample["id"]]]
        np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), np.array(image))
        mask = np.array(trimap) != 2
        np.testing.assert_array_equal(sample["seg"].numpy(), mask)
        assert {0: 0, 1: 1, 5: 2}[breed] == sample["breed"]
        assert species == sample["species"]
        assert sample["bbox"].tolist() == [list(Image.fromarray(mask).getbbox())]
