import shutil

import numpy as np
import pytest
import torch
from dataset_files import (
    BOX,
    HEIGHT,
    WIDTH,
    make_folder,
    mask_of,
    pixels,
    save,
    table,
    truncate,
    voc,
    write_coco,
)
from mtlkit_datasets._samples import shuffled
from mtlkit_datasets.folder import Folder
from torchvision import tv_tensors

from mtlkit import DataError

SPLITS = ("train", "val", "test")


def all_samples(data):
    return {id: sample for name in SPLITS for id, sample in table(data.split(name)).items()}


def test_a_sample_is_what_the_contract_says(tmp_path):
    data = Folder(root=make_folder(tmp_path))
    sample = all_samples(data)["p1"]
    assert isinstance(sample["image"], tv_tensors.Image)
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), pixels(1))
    assert isinstance(sample["seg"], tv_tensors.Mask)
    np.testing.assert_array_equal(sample["seg"].numpy(), mask_of(1, 0))
    assert sample["seg"].dtype == torch.uint8
    assert isinstance(sample["bbox"], tv_tensors.BoundingBoxes)
    assert sample["bbox"].tolist() == [list(BOX)]
    assert sample["bbox"].dtype == torch.float32
    assert sample["bbox"].canvas_size == (HEIGHT, WIDTH)
    assert sample["cls"].dtype == torch.int64
    assert sample["cls"] == sample["species"] == 0


def test_every_column_is_a_label_and_the_first_is_cls_as_well(tmp_path):
    targets = Folder(root=make_folder(tmp_path)).spec.targets
    assert set(targets) == {"seg", "cls", "species", "breed", "bbox"}
    assert targets["cls"] == targets["species"]
    assert targets["species"].classes == ("cat", "dog")
    assert targets["breed"].classes == ("0", "1", "2")
    assert targets["seg"].classes == ("0", "1")


def test_a_column_called_cls_is_cls(tmp_path):
    make_folder(tmp_path, number=4)
    (tmp_path / "labels.csv").write_text("id,a,cls\np0,x,1\np1,y,2\np2,x,2\np3,y,1\n")
    targets = Folder(root=tmp_path).spec.targets
    assert targets["cls"].classes == ("1", "2")


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("boxes", [None, "coco", "voc"])
def test_any_kind_of_label_may_be_absent(tmp_path, labels, masks, boxes):
    data = Folder(root=make_folder(tmp_path, labels=labels, masks=masks, boxes=boxes))
    expected = {"seg"} if masks else set()
    expected |= {"cls", "species", "breed"} if labels else set()
    expected |= {"bbox"} if boxes else set()
    assert set(data.spec.targets) == expected
    samples = all_samples(data)
    assert len(samples) == 6
    for sample in samples.values():
        assert set(sample) == {"image", "id"} | expected
        if boxes:
            assert sample["bbox"].tolist() == [list(BOX)]


def test_single_labels_may_be_missing_and_are_counted(tmp_path):
    make_folder(tmp_path, number=8)
    (tmp_path / "masks/p0.png").unlink()
    (tmp_path / "labels.csv").write_text("id,kind,size\np1,,s\np2,a,\np3,b,l\n")
    write_coco(tmp_path, {"p1.png": [], "p2.png": [[1, 1, 2, 2], [4, 3, 8, 8]]})
    data = Folder(root=tmp_path)
    totals = {name: sum(t.labelled.values()) for name, t in data.spec.targets.items()}
    assert totals == {"seg": 7, "cls": 2, "kind": 2, "size": 2, "bbox": 1}
    samples = all_samples(data)
    assert set(samples["p0"]) == {"image", "id"}
    assert set(samples["p1"]) == {"image", "id", "seg", "size"}
    assert samples["p2"]["bbox"].tolist() == [list(BOX)]
    for name in SPLITS:
        counted = sum("kind" in sample for sample in table(data.split(name)).values())
        assert data.spec.targets["kind"].labelled[name] == counted


def test_files_may_lie_in_sub_folders(tmp_path):
    for index, name in enumerate(("x/a", "y/a", "y/b", "z")):
        save(tmp_path / "images" / f"{name}.JPG", pixels(index))
        save(tmp_path / "masks" / f"{name}.png", mask_of(1, 0))
    save(tmp_path / "images" / ".hidden.jpg", pixels())
    (tmp_path / "images" / "notes.txt").write_text("not a picture")
    (tmp_path / "labels.csv").write_text("id,kind\nx/a,p\ny/a.JPG,q\nb,p\nz,q\n")
    samples = all_samples(Folder(root=tmp_path))
    assert {id: int(sample["cls"]) for id, sample in samples.items()} == {
        "x/a": 0,
        "y/a": 1,
        "y/b": 0,
        "z": 1,
    }
    assert all("seg" in sample for sample in samples.values())


def test_names_alone_decide_the_splits(tmp_path):
    data = Folder(root=make_folder(tmp_path, number=20), val_share=0.2, test_share=0.1)
    assert data.spec.sizes == {"train": 14, "val": 4, "test": 2}
    first = {name: list(table(data.split(name))) for name in SPLITS}
    again = Folder(root=tmp_path, val_share=0.2, test_share=0.1, verify=False)
    assert {name: list(table(again.split(name))) for name in SPLITS} == first
    assert len({id for ids in first.values() for id in ids}) == 20
    assert first["train"] != sorted(first["train"])


def test_the_order_of_names_is_the_same_in_every_program():
    assert shuffled("abcdef") == list("efcabd")


def test_a_share_of_zero_leaves_a_split_empty(tmp_path):
    data = Folder(root=make_folder(tmp_path), test_share=0)
    assert data.spec.sizes == {"train": 5, "val": 1, "test": 0}


def test_a_split_column_decides(tmp_path):
    make_folder(tmp_path, number=4)
    (tmp_path / "labels.csv").write_text(
        "split,id,kind\ntest,p0,a\ntrain,p1,b\nval,p2,a\ntrain,p3,b\n"
    )
    data = Folder(root=tmp_path)
    assert {name: set(table(data.split(name))) for name in SPLITS} == {
        "train": {"p1", "p3"},
        "val": {"p2"},
        "test": {"p0"},
    }
    assert set(data.spec.targets) == {"seg", "cls", "kind", "bbox"}


def test_a_folder_for_each_split_decides(tmp_path):
    for index, name in enumerate(SPLITS):
        make_folder(tmp_path / name, number=index + 2)
    data = Folder(root=tmp_path)
    assert data.spec.sizes == {"train": 2, "val": 3, "test": 4}
    assert data.spec.targets["species"].classes == ("cat", "dog")


def test_what_has_no_folder_is_taken_from_train(tmp_path):
    make_folder(tmp_path / "train", number=10)
    make_folder(tmp_path / "val", number=3)
    assert Folder(root=tmp_path, test_share=0.2).spec.sizes == {"train": 8, "val": 3, "test": 2}


def test_lists_name_the_classes(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "seg_classes.txt").write_text("ground\nthing\nother\n")
    (tmp_path / "species_classes.txt").write_text("dog\ncow\ncat\n")
    data = Folder(root=tmp_path)
    assert data.spec.targets["seg"].classes == ("ground", "thing", "other")
    assert data.spec.targets["cls"].classes == ("dog", "cow", "cat")
    assert all_samples(data)["p1"]["cls"] == 2


def test_binary_masks_hold_anything_but_zero_for_the_object(tmp_path):
    make_folder(tmp_path, masks=False)
    save(tmp_path / "masks/p0.png", mask_of(255, 0))
    save(tmp_path / "masks/p1.png", mask_of(1, 0))
    data = Folder(root=tmp_path, masks="binary")
    assert data.spec.targets["seg"].classes == ("background", "foreground")
    samples = all_samples(data)
    for id in ("p0", "p1"):
        np.testing.assert_array_equal(samples[id]["seg"].numpy(), mask_of(1, 0))


def test_255_is_not_labelled(tmp_path):
    make_folder(tmp_path)
    save(tmp_path / "masks/p0.png", mask_of(255, 0))
    data = Folder(root=tmp_path)
    assert data.spec.targets["seg"].classes == ("0", "1")
    assert set(all_samples(data)["p0"]["seg"].unique().tolist()) == {0, 255}


def jpeg(path):
    path.with_suffix(".png").unlink()
    path.parents[1].joinpath("boxes.json").unlink()
    truncate(save(path, pixels(height=100, width=100)))


def masks_of(inside, outside):
    def do(folder):
        for path in folder.glob("*.png"):
            save(path, mask_of(inside, outside))

    return do


@pytest.mark.parametrize(
    ("relative", "how", "message"),
    [
        ("images", "remove", r"holds neither images/ nor train/images/; set --data\.root"),
        ("images", "empty", r"images: holds no picture; put files there that end in \.jpg"),
        ("images/p1.jpg", jpeg, r"1 problem in .*: images/p1\.jpg: cannot be decoded"),
        ("images/p1.bmp", pixels(), r"images/p1\.png: differs from p1\.bmp in its suffix alone"),
        ("masks", "empty", "masks: holds no mask; put PNG files there called like the images"),
        ("masks/q.png", mask_of(1, 0), r"masks/q\.png: has no image"),
        ("masks/p1.png", mask_of(1, 0, height=9), r"p1\.png: 24x9 pixels, but its image .* 24x16"),
        (
            "masks/p1.png",
            mask_of(9, 0),
            r"p1\.png: class id 9 is out of range: no mask holds 2, and ids",
        ),
        ("masks/p1.png", pixels(), r"masks/p1\.png: a colour picture"),
        ("masks", masks_of(255, 0), r"hold the class ids 0, not 0, 1 .*; set --data\.masks bin"),
        ("seg_classes.txt", "one\n", r"class id 1 is out of range; seg_classes\.txt names 1 cla"),
        ("species_classes.txt", "dog\n", r"labels\.csv: 'p\d': class cat is out of range; there"),
        ("labels.csv", "id,size\np1,-1\np2,2\n", "'p1': class id -1 is out of range"),
        ("labels.csv", "id,size\np1,\n", r"column 'size' of labels\.csv names no class; fill"),
        ("labels.csv", "id,split\np1,val\n", r"images/p0\.png: has no line in labels\.csv, whose"),
        ("boxes.json", '{"images": [{"id": 1, "file_name": "q"}], "annotations": []}', "'q' is no"),
        ("boxes", "empty", r"holds boxes\.json and boxes/; keep one of them"),
    ],
)
def test_what_is_wrong_is_named_at_the_start(tmp_path, relative, how, message):
    path = make_folder(tmp_path) / relative
    if callable(how):
        how(path)
    elif isinstance(how, np.ndarray):
        save(path, how)
    elif how in ("remove", "empty"):
        shutil.rmtree(path, ignore_errors=True)
        if how == "empty":
            path.mkdir()
    else:
        path.write_text(how)
    with pytest.raises(DataError, match=message) as caught:
        Folder(root=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([4, 3, 30, 8], r"images/p1\.png: box \[4, 3, 34, 11\] reaches out of its image of 24x16"),
        ([4, 3, -2, 8], r"boxes\.json: p1\.png: box .* empty or inverted"),
        ([float("nan"), 3, 2, 8], "not made of finite numbers"),
    ],
)
def test_a_bad_coco_box_is_named_at_the_start(tmp_path, box, message):
    write_coco(make_folder(tmp_path), {"p1.png": [box]})
    with pytest.raises(DataError, match=message):
        Folder(root=tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p1", voc((1, 1, 99, 9)), r"images/p1\.png: box .* reaches out"),
        ("p1", "<", r"boxes/p1\.xml: not readable as XML"),
        ("q", voc((1, 1, 9, 9)), r"boxes/q\.xml: has no image"),
    ],
)
def test_a_bad_voc_file_is_named_at_the_start(tmp_path, name, text, message):
    make_folder(tmp_path, boxes="voc")
    (tmp_path / "boxes" / f"{name}.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        Folder(root=tmp_path)


def test_an_empty_folder_of_voc_files_is_named(tmp_path):
    make_folder(tmp_path, boxes=None)
    (tmp_path / "boxes").mkdir()
    with pytest.raises(DataError, match=r"boxes: holds no \.xml file"):
        Folder(root=tmp_path)


def test_several_bad_files_are_named_in_one_line(tmp_path):
    make_folder(tmp_path, number=12)
    for index in range(7):
        (tmp_path / f"images/p{index}.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"^7 problems in .*; and 2 more\. Mend"):
        Folder(root=tmp_path)


def test_without_verifying_a_bad_file_is_named_when_it_is_read(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "images/p1.png").write_bytes(b"no")
    save(tmp_path / "masks/p2.png", mask_of(1, 0, height=9))
    data = Folder(root=tmp_path, verify=False)
    where = {
        picture.id: (data.split(name), index)
        for name in SPLITS
        for index, picture in enumerate(data.split(name).pictures)
    }
    for id, message in (("p1", "cannot be decoded"), ("p2", "24x9 pixels, .* 24x16; replace it")):
        samples, index = where[id]
        with pytest.raises(DataError, match=message):
            samples[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_share": 1.0}, r"val_share is a part of the pictures in \[0, 1\), got 1\.0"),
        ({"test_share": -0.1}, r"test_share is a part of the pictures in \[0, 1\), got -0\.1"),
        ({"val_share": 0.5, "test_share": 0.5}, "no picture is left to train on"),
    ],
)
def test_a_share_out_of_range_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Folder(root=make_folder(tmp_path), **options)
