"""Bad data is refused, or left out and counted when the user says so."""

import json

import h5py
import numpy as np
import pytest
import torch
from dataset_files import (
    h5_arrays,
    make_folder,
    make_h5,
    make_pets,
    mask_of,
    pixels,
    save,
    table,
    truncate,
    voc,
    write_coco,
    write_h5,
)
from mtlkit_datasets.folder import Folder
from mtlkit_datasets.h5 import HDF5
from mtlkit_datasets.oxford_pets import OxfordPets

from mtlkit import DataError, DataProblem, Dataset, DatasetSpec, api
from mtlkit.cli import main
from mtlkit.data import left_out

SPLITS = ("train", "val", "test")


class Toy(Dataset):
    """A third party's reader."""

    def __init__(self, problems, on_bad="raise", train=1):
        self.spec = DatasetSpec({}, {"train": train, "val": 0, "test": 0})
        self.set_aside("/data", problems, on_bad)

    split = None


def test_one_error_names_the_first_five_problems_and_counts_the_rest():
    with pytest.raises(DataError) as caught:
        Toy([DataProblem(f"/data/f{i}: bad\nindeed") for i in range(8)])
    message = str(caught.value)
    assert message.startswith("8 problems in /data: f0: bad indeed; f1: bad")
    assert "f4: bad" in message
    assert "f5" not in message
    assert message.endswith("and 3 more. Mend, replace or remove what is named, or go on without "
                            "it by --data.on-bad skip")  # fmt: skip
    assert len(caught.value.problems) == 8


def test_what_is_skipped_is_kept_on_record():
    problems = [
        DataProblem("/data/a: gone", sample=True),
        DataProblem("/data/b: bad", labels=("seg", "bbox")),
        DataProblem("/data/c: bad", labels=("seg",)),
        DataProblem("/data/d: belongs to nothing"),
    ]
    data = Toy(problems, "skip")
    assert [problem.text for problem in data.problems][:2] == ["a: gone", "b: bad"]
    assert left_out(data.problems) == "1 sample, 2 x seg, 1 x bbox"
    assert Toy([]).problems == ()


def test_nothing_to_train_on_is_refused_even_when_the_bad_is_skipped():
    with pytest.raises(DataError, match=r"^nothing is left to train on: 1 problem in /data: a"):
        Toy([DataProblem("a", sample=True)], "skip", train=0)


def test_a_text_from_a_file_cannot_drive_the_terminal_or_flood_it():
    [problem] = Toy([DataProblem("\x1b[2Jgone \udcff" + "x" * 1000)], "skip").problems
    assert problem.text.startswith(r"\x1b[2Jgone \udcffxxx")
    assert len(problem.text) < 600


def all_samples(data):
    return {id: sample for name in SPLITS for id, sample in table(data.split(name)).items()}


def places(data):
    """In which split each sample is."""
    return {id: name for name in SPLITS for id in table(data.split(name))}


def labelled(data):
    """How many samples have each label; the dataset's own count must agree."""
    for name in SPLITS:
        for target, spec in data.spec.targets.items():
            found = sum(target in sample for sample in table(data.split(name)).values())
            assert found == spec.labelled[name]
    samples = all_samples(data).values()
    return {target: sum(target in s for s in samples) for target in data.spec.targets}


def text(relative, content):
    def do(root):
        (root / relative).write_bytes(content)

    return do


def append(line):
    def do(root):
        with (root / "labels.csv").open("a") as file:
            file.write(line + "\n")

    return do


def picture(relative, array):
    def do(root):
        save(root / relative, array)

    return do


def boxes(found):
    def do(root):
        tree = json.loads((root / "boxes.json").read_text())
        for note in tree["annotations"]:
            note["bbox"] = found.get(f"p{note['image_id']}", note["bbox"])
        (root / "boxes.json").write_text(json.dumps(tree))

    return do


NAN = float("nan")
WHOLE = {"seg": 12, "cls": 12, "species": 12, "breed": 12, "bbox": 12}


@pytest.mark.parametrize(
    ("how", "lost", "without"),
    [
        (text("images/p3.png", b""), "1 sample", "the file is empty"),
        (text("images/p3.png", b"no"), "1 sample", "not a picture in a known format"),
        (lambda root: truncate(root / "images/p3.png"), "1 sample", "truncated"),
        (picture("images/p3.jpg", pixels()), "1 sample", "in its suffix alone"),
        (text("masks/p3.png", b"no"), "1 x seg", "masks/p3.png: cannot be decoded"),
        (picture("masks/p3.png", mask_of(77, 0)), "1 x seg", "class id 77 is out of range"),
        (picture("masks/p3.png", mask_of(1, 0, height=9)), "1 x seg", "24x9 pixels"),
        (picture("masks/p3.tif", mask_of(1, 0)), "1 x seg", "in its suffix alone"),
        (picture("masks/stray.png", mask_of(1, 0)), "", "masks/stray.png: has no image"),
        (boxes({"p3": [4, 3, -2, 8]}), "1 x bbox", "empty or inverted"),
        (boxes({"p3": [NAN, 3, 2, 8]}), "1 x bbox", "not made of finite numbers"),
        (boxes({"p3": [90, 3, 2, 8]}), "1 x bbox", "reaches out"),
        (append("stray,cat,1"), "", "'stray' is no picture"),
        (append("p3,cat,1"), "1 x species, 1 x breed", "'p3' has a line already"),
        (append("p3,cat"), "1 x species, 1 x breed", "has not 3 cells"),
    ],
)
def test_of_a_folder_the_bad_alone_is_left_out_and_all_else_stays_where_it_was(
    tmp_path, how, lost, without
):
    make_folder(tmp_path, number=12)
    before = places(Folder(root=tmp_path))
    how(tmp_path)
    with pytest.raises(DataError, match=r"^1 problem in .*--data\.on-bad skip$") as caught:
        Folder(root=tmp_path)
    assert without in str(caught.value)
    data = Folder(root=tmp_path, on_bad="skip")
    assert left_out(data.problems) == lost
    assert len(data.problems) == 1
    gone = {"p3"} if lost == "1 sample" else set()
    assert places(data) == {id: split for id, split in before.items() if id not in gone}
    expected = {name: 11 if gone or name in lost else 12 for name in WHOLE}
    expected["cls"] = expected["species"]
    assert labelled(data) == expected


def test_of_a_bad_picture_the_labels_are_named_but_not_counted_again(tmp_path):
    make_folder(tmp_path, boxes="voc", number=12)
    for name in ("images/p3.png", "masks/p3.png", "boxes/p3.xml"):
        (tmp_path / name).write_bytes(b"no")
    data = Folder(root=tmp_path, on_bad="skip")
    assert len(data.problems) == 3
    assert left_out(data.problems) == "1 sample, 1 x bbox"
    (tmp_path / "boxes/p3.xml").write_text(voc((9, 1, 4, 9)))
    with pytest.raises(DataError, match=r"^3 problems"):
        Folder(root=tmp_path)


def test_where_a_split_column_decides_a_picture_without_a_line_is_left_out(tmp_path):
    make_folder(tmp_path, number=6)
    rows = ["p0,a,train", "p1,b,train", "p2,a,val", "p3,b,tset", "p4,a,test", "p4,b,train"]
    (tmp_path / "labels.csv").write_text("\n".join(["id,kind,split", *rows]))
    data = Folder(root=tmp_path, on_bad="skip")
    assert places(data) == {"p0": "train", "p1": "train", "p2": "val"}
    assert left_out(data.problems) == "3 samples"


def test_a_class_that_its_list_does_not_name_is_left_out(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "species_classes.txt").write_text("dog\n")
    data = Folder(root=tmp_path, on_bad="skip")
    assert left_out(data.problems) == "3 x species"
    assert labelled(data) == {"seg": 6, "cls": 3, "species": 3, "breed": 6, "bbox": 6}


def test_a_name_that_is_not_utf8_is_left_out(tmp_path):
    make_folder(tmp_path)
    for place, array in (("images", pixels()), ("masks", mask_of(1, 0))):
        path = tmp_path / place / b"\xff\xfe.png".decode(errors="surrogateescape")
        try:
            save(path, array)
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(DataError, match=r"images/\\udcff\\udcfe\.png: its name is not UTF-8"):
        Folder(root=tmp_path)
    assert len(all_samples(Folder(root=tmp_path, on_bad="skip"))) == 6


@pytest.mark.parametrize(
    ("relative", "content"),
    [
        ("labels.csv", "name,kind\np1,a\n"),
        ("labels.csv", "id,kind\np1,\xff\n"),
        ("boxes.json", "[1, 2"),
        ("seg_classes.txt", "a\na\n"),
    ],
)
def test_a_table_that_says_nothing_is_refused_even_then(tmp_path, relative, content):
    (make_folder(tmp_path) / relative).write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=relative.replace(".", r"\.")):
        Folder(root=tmp_path, on_bad="skip")


PICTURE, TRIMAP = "images/Bengal_1.jpg", "annotations/trimaps/Bengal_1.png"


@pytest.mark.parametrize(
    ("relative", "missing", "boxes", "lost"),
    [
        (PICTURE, False, "mask", "1 sample"),
        (PICTURE, True, "mask", "1 sample"),
        (TRIMAP, False, "mask", "1 x seg, 1 x bbox"),
        (TRIMAP, True, "mask", "1 x seg, 1 x bbox"),
        (TRIMAP, False, "head", "1 x seg"),
        ("annotations/xmls/Bengal_1.xml", False, "head", "1 x bbox"),
    ],
)
def test_of_the_pets_the_bad_alone_is_left_out(tmp_path, relative, missing, boxes, lost):
    root = make_pets(tmp_path)
    good = OxfordPets(root=root, boxes=boxes)
    where, had = places(good), labelled(good)
    file = root / "oxford-iiit-pet" / relative
    if missing:
        file.unlink()
    else:
        file.write_bytes(b"no")
    with pytest.raises(DataError, match=r"^1 problem"):
        OxfordPets(root=root, boxes=boxes)
    data = OxfordPets(root=root, boxes=boxes, on_bad="skip")
    assert left_out(data.problems) == lost
    has = labelled(data)
    fewer = {name for name in had if has[name] < had[name]}
    if relative == PICTURE:
        del where["Bengal_1"]
        assert fewer == (set(had) if boxes == "mask" else set(had) - {"bbox"})
    else:
        assert fewer == {name for name in had if f"1 x {name}" in lost}
    assert places(data) == where


def spoil(name, row, value):
    def do(root):
        array = h5_arrays()[name].astype("f4")
        array[row] = value
        write_h5(root / "train", {name: array})

    return do


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [("images", 300, ""), ("masks", 2, "seg"), ("bboxes", NAN, "bbox"), ("binary", 7, "cls")],
)
def test_of_hdf5_files_the_bad_rows_alone_are_left_out(tmp_path, name, value, label):
    make_h5(tmp_path)
    spoil(name, 1, value)(tmp_path)
    data = HDF5(root=tmp_path, on_bad="skip")
    assert [problem.text.partition(" ")[0] for problem in data.problems] == [f"train/{name}.h5:"]
    assert left_out(data.problems) == (f"1 x {label}" if label else "1 sample")
    counts = labelled(data)
    for target in ("seg", "bbox", "cls"):
        assert counts[target] == (14 if target == label or not label else 15)
    samples = table(data.split("train"))
    assert ("train-000001" in samples) == bool(label)
    np.testing.assert_array_equal(
        samples["train-000003"]["image"].permute(1, 2, 0).numpy(), pixels(3)
    )


def test_rows_that_hdf5_cannot_read_are_left_out(tmp_path):
    make_h5(tmp_path)
    path = tmp_path / "train" / "images.h5"
    images = h5_arrays()["images"]
    with h5py.File(path, "w") as file:
        chunks = (1, *images.shape[1:])
        file.create_dataset("data", data=images, chunks=chunks, compression="gzip")
        offset = file["data"].id.get_chunk_info(2).byte_offset
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 64)
    with pytest.raises(DataError, match=r"^1 problem in .*train/images\.h5: row 2 cannot be read"):
        HDF5(root=tmp_path)
    assert list(table(HDF5(root=tmp_path, on_bad="skip").split("train"))) == [
        f"train-00000{row}" for row in (0, 1, 3, 4)
    ]


def test_an_array_that_was_hardly_written_is_refused_before_it_is_read(tmp_path):
    make_h5(tmp_path)
    with h5py.File(tmp_path / "train" / "images.h5", "w") as file:
        file.create_dataset("data", shape=(10**9, 64, 64, 3), chunks=(1, 64, 64, 3), dtype="u1")
    for name in ("masks", "bboxes", "binary"):
        (tmp_path / "train" / f"{name}.h5").unlink()
    with pytest.raises(DataError, match=r"images\.h5: claims 12,288,000,000,000 bytes but holds 0"):
        HDF5(root=tmp_path)


def options(root, output):
    return {
        "tasks": "seg,cls,bbox",
        "data": {"name": "folder", "root": str(root)},
        "backbone": {"name": "segnet", "width": 4},
        "image_size": 32,
        "batch_size": 4,
        "max_steps": 2,
        "workers": 0,
        "output": str(output),
    }


def test_training_refuses_bad_data_before_anything_is_written(tmp_path, capsys):
    root = make_folder(tmp_path / "data", number=12)
    (root / "images/p3.png").write_bytes(b"")
    words = ["train", "--data", "folder", "--data.root", str(root), "--output", str(tmp_path / "r")]
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert "1 problem in" in printed
    assert "images/p3.png: cannot be decoded (the file is empty)" in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_training_goes_on_without_the_bad_and_says_so(tmp_path, capsys):
    root = make_folder(tmp_path / "data", number=12)
    (root / "images/p3.png").write_bytes(b"")
    save(root / "masks/p4.png", mask_of(77, 0))
    write_coco(root, {f"p{i}.png": [[4, 3, 8 if i else -8, 8]] for i in range(12)})
    run = options(root, tmp_path / "run")
    run["data"]["on_bad"] = "skip"
    results = api.fit(**run)
    said = "3 problems, which mtlkit data check names; left out: 1 sample, 1 x bbox, 1 x seg"
    assert said in capsys.readouterr().out
    assert results["status"] == "ok"
    assert all(torch.isfinite(torch.tensor(results["test"][f"{id}/loss"])) for id in ("seg", "cls"))
