"""NYUv2 as arrays and as pictures."""

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import (
    HEIGHT,
    WIDTH,
    frame_arrays,
    make_nyuv2,
    make_nyuv2_pictures,
    pixels,
    save,
    save_npy,
    table,
)
from mtlkit_datasets.nyuv2 import CLASSES, NYUv2
from PIL import Image
from torchvision import tv_tensors

from mtlkit import DataError, api
from mtlkit.cli import main
from mtlkit.data import left_out

REAL = Path(os.environ.get("MTLKIT_TEST_DATA", "nowhere")) / "nyuv2-mini"


def test_a_sample_is_what_the_contract_says(tmp_path):
    data = NYUv2(root=make_nyuv2(tmp_path))
    quantities = {name: (t.kind, t.quantity, t.channels) for name, t in data.spec.targets.items()}
    assert quantities == {
        "seg": ("mask", "plain", 1),
        "depth": ("map", "distance", 1),
        "normals": ("map", "direction", 3),
    }
    assert data.spec.targets["seg"].classes == CLASSES
    assert len(CLASSES) == 13
    sample, arrays = table(data.split("test"))["2"], frame_arrays(1002)
    assert isinstance(sample["image"], tv_tensors.Image)
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), pixels(1002))
    assert sample["seg"].dtype == torch.uint8
    assert sample["seg"][0].eq(255).all()
    np.testing.assert_array_equal(sample["seg"][1:].numpy(), arrays["label"][1:])
    np.testing.assert_array_equal(sample["depth"].numpy(), arrays["depth"].transpose(2, 0, 1))
    expected = arrays["normal"].transpose(2, 0, 1)
    np.testing.assert_allclose(sample["normals"].numpy(), expected, atol=1e-6)
    assert isinstance(sample["normals"], tv_tensors.Mask)


def test_test_is_the_official_one_and_val_is_a_part_of_train(tmp_path):
    data = NYUv2(root=make_nyuv2(tmp_path, train=40), val_share=0.5)
    assert data.spec.sizes == {"train": 20, "val": 20, "test": 3}
    train, val = (set(table(data.split(name))) for name in ("train", "val"))
    assert train | val == {str(index) for index in range(40)}
    assert [frame.id for frame in data.split("test").frames] == ["0", "1", "2"]
    assert (
        table(data.split("test"))["0"]["image"]
        .ne(table(NYUv2(root=tmp_path, val_share=0).split("train"))["0"]["image"])
        .any()
    )


def test_val_is_made_of_runs_of_neighbours_and_drawn_the_same_way_every_time(tmp_path):
    root = make_nyuv2(tmp_path, train=100)
    [val, again] = (
        [int(f.id) for f in NYUv2(root=root, val_share=0.3).split("val").frames] for _ in range(2)
    )
    assert val == again
    assert len(val) == 30
    assert sum(b - a == 1 for a, b in pairwise(val)) >= 28
    assert val[:16] == list(range(val[0], val[0] + 16))


def test_without_a_share_all_of_train_is_trained_on(tmp_path):
    data = NYUv2(root=make_nyuv2(tmp_path), val_share=0)
    assert data.spec.sizes == {"train": 12, "val": 0, "test": 3}
    with pytest.raises(ValueError, match=r"val_share is a part of the frames in \[0, 1\), got 1"):
        NYUv2(root=tmp_path, val_share=1)


def test_the_order_of_labels_is_the_same_in_every_process(tmp_path):
    for frame in NYUv2(root=make_nyuv2(tmp_path)).split("train").frames:
        assert list(frame.files) == ["image", "seg", "depth", "normals"]


def test_one_frame_is_kept_to_train_on(tmp_path):
    assert NYUv2(root=make_nyuv2(tmp_path, train=1)).spec.sizes["train"] == 1


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2"])
def test_arrays_of_any_type_and_order_are_read_alike(tmp_path, dtype, order):
    make_nyuv2(tmp_path)
    for name, array in frame_arrays(0).items():
        save_npy(tmp_path / f"val/{name}/0.npy", np.asarray(array, dtype=dtype, order=order))
    sample = table(NYUv2(root=tmp_path).split("test"))["0"]
    arrays = frame_arrays(0)
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), pixels(0))
    np.testing.assert_array_equal(sample["seg"][1:].numpy(), arrays["label"][1:])
    np.testing.assert_allclose(sample["depth"][0].numpy(), arrays["depth"][..., 0], rtol=1e-3)
    assert sample["depth"].dtype == torch.float32


def test_bytes_and_planes_without_a_channel_are_read_too(tmp_path):
    make_nyuv2(tmp_path)
    arrays = frame_arrays(0)
    save_npy(tmp_path / "val/image/0.npy", pixels(5))
    save_npy(tmp_path / "val/depth/0.npy", arrays["depth"][..., 0])
    save_npy(tmp_path / "val/label/0.npy", arrays["label"].astype(np.int8).astype(np.uint8))
    sample = table(NYUv2(root=tmp_path, verify=True).split("test"))["0"]
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), pixels(5))
    np.testing.assert_array_equal(sample["depth"][0].numpy(), arrays["depth"][..., 0])
    np.testing.assert_array_equal(sample["seg"][0].numpy(), np.full(WIDTH, 255))


def test_what_is_no_measurement_becomes_0_and_normals_get_length_1(tmp_path):
    make_nyuv2(tmp_path)
    arrays = {name: array.astype("f8") for name, array in frame_arrays(0).items()}
    arrays["depth"][5, :4, 0] = np.nan, np.inf, -1, 1e300
    arrays["normal"][5, 0] = np.nan
    arrays["normal"][5, 1] = 0.6, 0, 0
    for name in ("depth", "normal"):
        save_npy(tmp_path / f"val/{name}/0.npy", arrays[name])
    sample = table(NYUv2(root=tmp_path, verify=True).split("test"))["0"]
    assert sample["depth"][0, 5, :4].eq(0).all()
    assert sample["normals"][:, 5, 0].eq(0).all()
    assert sample["normals"][:, 5, 1].tolist() == [1, 0, 0]
    lengths = sample["normals"].as_subclass(torch.Tensor).norm(dim=0)
    assert ((lengths - 1).abs() < 1e-6)[3:].sum() == (HEIGHT - 3) * WIDTH - 1


def npy(name, array):
    def do(root):
        save_npy(root / f"train/{name}/5.npy", array)

    return do


def content(name, data):
    def do(root):
        (root / f"train/{name}/5.npy").write_bytes(data)

    return do


def cut(root):
    path = root / "train/depth/5.npy"
    path.write_bytes(path.read_bytes()[:-1])


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000, 3)}"
PICKLED = "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
DEPTH = frame_arrays()["depth"]


@pytest.mark.parametrize(
    ("how", "lost", "message"),
    [
        (npy("image", pixels(height=9)[..., :2]), "1 sample", "image/5.npy: has shape [9, 24, 2]"),
        (npy("image", np.zeros((0, 4, 3))), "1 sample", "image/5.npy: has no pixels"),
        (content("image", header(HUGE)), "1 sample", "image/5.npy: cannot be read as an array"),
        (content("image", header(PICKLED)), "1 sample", "objects"),
        (content("image", b""), "1 sample", "image/5.npy: cannot be read as an array"),
        (npy("label", pixels()), "1 x seg", "has shape [16, 24, 3]; needs [H, W] or [H, W, 1]"),
        (npy("label", np.full((HEIGHT, WIDTH), "a")), "1 x seg", "holds <U1; needs numbers"),
        (npy("depth", DEPTH[:9]), "1 x depth", "24x9 pixels, but its image 5.npy has 24x16"),
        (npy("normal", DEPTH), "1 x normals", "has shape [16, 24, 1]; needs [H, W, 3]"),
        (cut, "1 x depth", "cannot be read as an array"),
        (lambda root: (root / "train/normal/5.npy").unlink(), "1 x normals", "5.npy: no such file"),
        (lambda root: save_npy(root / "train/depth/99.npy", DEPTH), "", "99.npy: has no image"),
    ],
)  # fmt: skip
def test_what_a_header_tells_is_named_at_the_start_and_can_be_left_out(
    tmp_path, how, lost, message
):
    how(make_nyuv2(tmp_path))
    with pytest.raises(DataError, match=r"^1 problem in ") as caught:
        NYUv2(root=tmp_path)
    assert message in str(caught.value)
    data = NYUv2(root=tmp_path, on_bad="skip")
    assert left_out(data.problems) == lost
    assert sum(data.spec.sizes.values()) == (14 if lost == "1 sample" else 15)


def changed(name, place, value):
    array = frame_arrays()[name]
    array[place] = value
    return npy(name, array)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (changed("image", (3, 3, 0), 255), "holds float32 from 0 to 255; a picture holds floats"),
        (changed("image", (3, 3, 0), np.nan), "holds float32 from nan to nan; a picture"),
        (npy("image", pixels().astype(np.int32)), "holds int32 from 0 to 255"),
        (changed("label", (3, 3), 13), "holds 13; classes are 0 to 12, and -1 or 255 where"),
        (changed("label", (3, 3), 0.5), "holds 0.5; classes are"),
        (changed("label", (3, 3), np.nan), "holds nan; classes are"),
        (changed("normal", (5, 5), 128), "holds 128; normals have length 1"),
    ],
)  # fmt: skip
def test_wrong_numbers_are_named_at_the_start_if_wanted_else_when_they_are_read(
    tmp_path, how, message
):
    how(make_nyuv2(tmp_path))
    with pytest.raises(DataError) as caught:
        NYUv2(root=tmp_path, verify=True)
    assert message in str(caught.value)
    data = NYUv2(root=tmp_path, val_share=0)
    with pytest.raises(DataError) as caught:
        table(data.split("train"))
    assert message in str(caught.value)


def test_bad_frames_move_no_other_to_another_split(tmp_path):
    root = make_nyuv2(tmp_path, train=40)
    before = {f.id for f in NYUv2(root=root, val_share=0.4).split("val").frames}
    (root / "train/image/0.npy").write_bytes(b"")
    after = {f.id for f in NYUv2(root=root, val_share=0.4, on_bad="skip").split("val").frames}
    assert after == before - {"0"}


@pytest.mark.parametrize("absent", ["normal", "depth", "label"])
def test_label_folders_may_be_absent(tmp_path, absent):
    root = make_nyuv2(tmp_path)
    for split in ("train", "val"):
        (root / split / absent).rename(root / f"{split}-{absent}")
    data = NYUv2(root=root)
    target = {"normal": "normals", "label": "seg"}.get(absent, absent)
    assert set(data.spec.targets) == {"seg", "depth", "normals"} - {target}


def test_a_folder_of_neither_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds neither train/image/ with arrays nor train/rgb/"):
        NYUv2(root=tmp_path)
    (tmp_path / "train/image").mkdir(parents=True)
    with pytest.raises(DataError, match=r"train/image: holds no picture \(\*\.npy\); --data\.root"):
        NYUv2(root=tmp_path)


@pytest.mark.parametrize("millimetres", [False, True])
def test_pictures_hold_the_same_in_grey_levels(tmp_path, millimetres):
    data = NYUv2(root=make_nyuv2_pictures(tmp_path, millimetres=millimetres), verify=True)
    assert set(data.spec.targets) == {"seg", "depth"}
    sample, arrays = table(data.split("test"))["0008"], frame_arrays(1)
    step = 0.001 if millimetres else 1 / 25.5
    depth = arrays["depth"][..., 0]
    assert np.abs(sample["depth"][0].numpy() - depth).max() <= step / 2 + 1e-6
    assert sample["depth"][0, :2].eq(0).all()
    np.testing.assert_array_equal(sample["seg"][1:].numpy(), arrays["label"][1:])
    assert sample["seg"][0].eq(255).all()


def test_depth_in_colours_or_a_class_beyond_the_13_is_named(tmp_path):
    make_nyuv2_pictures(tmp_path)
    save(tmp_path / "train/depth/0001.png", pixels())
    save(tmp_path / "test/seg13/0001.png", pixels()[..., 0] // 16 + 5)
    with pytest.raises(DataError) as caught:
        NYUv2(root=tmp_path, verify=True)
    assert "depth/0001.png: a picture of mode RGB; depth is grey" in str(caught.value)
    assert "there are 13 classes, and 255 is 'not labelled'" in str(caught.value)


def test_all_three_tasks_are_trained_and_predict_maps(tmp_path):
    results = api.fit(
        tasks="seg,depth,normals",
        data={"name": "nyuv2", "root": str(make_nyuv2(tmp_path / "data"))},
        backbone={"name": "segnet", "width": 4},
        image_size="32x64",
        batch_size=4,
        max_steps=2,
        workers=0,
        output=str(tmp_path / "run"),
    )
    assert {"seg/pixel_accuracy", "depth/delta1", "normals/within_11.25"} <= set(results["test"])
    assert all(np.isfinite(value) for value in results["test"].values())
    picture = save(tmp_path / "a.png", pixels(height=40, width=50))
    words = ["predict", tmp_path / "run", picture, "--output", tmp_path]
    assert main([str(word) for word in words]) == 0
    depth, normals = (np.load(tmp_path / f"a.{name}.npy") for name in ("depth", "normals"))
    assert (depth.dtype, depth.shape) == (np.float32, (40, 50))
    assert normals.shape == (3, 40, 50)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-5)
    said = json.loads((tmp_path / "a.json").read_text())
    assert said["depth"] == {"least": depth.min(), "most": depth.max()}
    assert said["normals"] == {}
    drawn = {}
    for name in ("depth", "normals", "overlay"):
        with Image.open(tmp_path / f"a.{name}.png") as image:
            drawn[name] = np.asarray(image)
        assert drawn[name].shape == (40, 50, 3)
    for name in ("depth", "normals"):
        assert (drawn["overlay"] != drawn[name]).any(-1).mean() > 0.5


@pytest.mark.skipif(not REAL.is_dir(), reason="needs MTLKIT_TEST_DATA with nyuv2-mini/")
def test_real_frames_are_read():
    data = NYUv2(root=REAL)
    assert data.spec.sizes == {"train": 216, "val": 24, "test": 120}
    sample = data.split("test")[0]
    assert sample["id"] == "0001"
    assert sample["image"].shape == (3, 192, 256)
    assert 0.5 < sample["depth"][sample["depth"] > 0].min() < sample["depth"].max() <= 10
    assert set(sample["seg"].unique().tolist()) <= {*range(13), 255}
