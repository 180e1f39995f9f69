import importlib.util
import pickle
import re
import sys

import h5py
import numpy as np
import pytest
import torch
from dataset_files import BOX, HEIGHT, WIDTH, h5_arrays, make_h5, mask_of, pixels, table, write_h5
from mtlkit_datasets import h5
from mtlkit_datasets.h5 import HDF5
from torchvision import tv_tensors

from mtlkit import ConfigError, DataError


def test_a_sample_is_what_the_contract_says(tmp_path):
    data = HDF5(root=make_h5(tmp_path))
    assert data.spec.sizes == {"train": 5, "val": 5, "test": 5}
    assert {name: target.kind for name, target in data.spec.targets.items()} == {
        "seg": "mask",
        "bbox": "box",
        "cls": "class",
    }
    assert data.image_size == HEIGHT
    sample = data.split("val")[3]
    assert sample["id"] == "val-000003"
    assert isinstance(sample["image"], tv_tensors.Image)
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), pixels(3))
    assert isinstance(sample["seg"], tv_tensors.Mask)
    np.testing.assert_array_equal(sample["seg"].numpy(), mask_of(1, 0))
    assert sample["seg"].dtype == torch.uint8
    assert sample["bbox"].tolist() == [list(BOX)]
    assert sample["bbox"].canvas_size == (HEIGHT, WIDTH)
    assert sample["cls"].dtype == torch.int64
    assert [int(s["cls"]) for s in table(data.split("test")).values()] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_floats_from_0_to_255_are_the_same_pictures(tmp_path, dtype):
    image = HDF5(root=make_h5(tmp_path, images=dtype)).split("train")[1]["image"]
    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), pixels(1))


def test_the_first_key_of_a_file_is_read_whatever_its_name(tmp_path):
    make_h5(tmp_path)
    write_h5(tmp_path / "train", h5_arrays(), key="anything")
    with h5py.File(tmp_path / "train" / "images.h5", "a") as file:
        file["zzz"] = np.zeros(3)
    assert len(HDF5(root=tmp_path).split("train")) == 5


@pytest.mark.parametrize(
    "absent", [("masks",), ("bboxes", "binary"), ("masks", "bboxes", "binary")]
)
def test_label_files_may_be_absent(tmp_path, absent):
    data = HDF5(root=make_h5(tmp_path, without=absent))
    targets = {h5.LABELS[name] for name in h5.LABELS if name not in absent}
    assert set(data.spec.targets) == targets
    assert set(data.split("train")[0]) == {"image", "id"} | targets


def test_a_label_file_may_be_absent_in_one_split(tmp_path):
    make_h5(tmp_path)
    (tmp_path / "test" / "bboxes.h5").unlink()
    data = HDF5(root=tmp_path)
    assert data.spec.targets["bbox"].labelled == {"train": 5, "val": 5, "test": 0}
    assert "bbox" not in data.split("test")[0]


def change(name, array):
    def do(root):
        write_h5(root / "val", {name: array})

    return do


def with_value(name, index, value):
    array = h5_arrays()[name].astype("float32" if name != "images" else "int16")
    array[index] = value
    return change(name, array)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda root: (root / "val/images.h5").unlink(), r"val/images\.h5: missing; --data\.root"),
        (lambda root: (root / "val/masks.h5").write_bytes(b"x" * 99), "cannot be read as HDF5"),
        (change("masks", h5_arrays(4)["masks"]), r"masks\.h5: has 4 rows, but images\.h5 has 5"),
        (change("images", np.zeros((5, 9, 9))), r"has shape \[5, 9, 9\]; needs \[N, H, W, 3\]"),
        (change("images", np.zeros((0, 9, 9, 3))), r"has shape \[0, 9, 9, 3\]"),
        (
            change("masks", np.zeros((5, 9, 9, 1))),
            r"masks\.h5: has shape .* needs \[5, 16, 24, 1\]",
        ),
        (change("bboxes", np.zeros((5, 5))), r"bboxes\.h5: has shape \[5, 5\]; needs \[5, 4\]"),
        (
            with_value("masks", (2, 3, 3), 2),
            r"val/masks\.h5: row 2 holds other values than 0 and 1",
        ),
        (with_value("binary", 4, np.nan), r"val/binary\.h5: row 4 holds other values than 0 and 1"),
        (with_value("bboxes", (1, 2), 90), r"bboxes\.h5: row 1: box \[4, 3, 90, 11\] reaches out"),
        (with_value("bboxes", (1, 2), np.nan), "row 1: box .* not made of finite numbers"),
        (with_value("bboxes", (0, 2), 2), "row 0: box .* empty or inverted"),
        (with_value("images", (4, 0, 0, 0), 256), r"images\.h5: row 4 holds values from 0 to 256"),
        (
            with_value("images", (0, 0, 0, 0), -1),
            "row 0 holds values from -1 to 255; needs",
        ),
        (
            change("images", h5_arrays()["images"] / np.float32(255)),
            r"images\.h5: holds values from 0 to 1; multiply them by 255",
        ),
        (
            change("images", np.full((5, HEIGHT, WIDTH, 3), np.nan)),
            "holds values from nan to nan; needs 0 to 255",
        ),
        (change("images", np.zeros((5, HEIGHT, WIDTH, 3), "S1")), r"holds \|S1; needs numbers"),
    ],
)
def test_what_is_wrong_is_named_at_the_start(tmp_path, how, message):
    how(make_h5(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        HDF5(root=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_first_key_without_an_array_is_named(tmp_path):
    make_h5(tmp_path)
    with h5py.File(tmp_path / "train" / "masks.h5", "w") as file:
        file.create_group("a")
    with pytest.raises(DataError, match=r"masks\.h5: its first key holds no array"):
        HDF5(root=tmp_path)


def test_floats_from_0_to_1_are_refused_even_without_verifying(tmp_path):
    make_h5(tmp_path)
    write_h5(tmp_path / "train", {"images": h5_arrays()["images"] / np.float32(255)})
    with pytest.raises(DataError, match="multiply them by 255"):
        HDF5(root=tmp_path, verify=False)


def test_without_verifying_values_are_not_read(tmp_path):
    with_value("masks", (2, 3, 3), 2)(make_h5(tmp_path))
    assert len(HDF5(root=tmp_path, verify=False).split("val")) == 5


def test_an_open_split_is_pickled_without_its_files(tmp_path):
    samples = HDF5(root=make_h5(tmp_path)).split("train")
    first = samples[0]["image"]
    again = pickle.loads(pickle.dumps(samples))
    assert again._tables is None
    assert torch.equal(again[0]["image"], first)


def test_the_reader_holds_no_file_open_until_a_sample_is_asked_for(tmp_path):
    samples = HDF5(root=make_h5(tmp_path)).split("train")
    assert samples._tables is None
    with h5py.File(tmp_path / "train" / "images.h5", "r+") as file:
        file["data"][0] = 7
    assert (samples[0]["image"] == 7).all()


def test_an_index_beyond_the_end_is_an_error(tmp_path):
    with pytest.raises(IndexError, match="sample 5 of 5"):
        HDF5(root=make_h5(tmp_path)).split("test")[5]


def test_a_missing_h5py_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    spec = importlib.util.find_spec("mtlkit_datasets.h5")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ConfigError, match=re.escape('pip install "mtlkit[h5]"')):
        module.HDF5(root=tmp_path)
