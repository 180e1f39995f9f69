"""Cityscapes and CamVid: what sets them apart from NYUv2, with which they share their reading."""

import numpy as np
import pytest
from dataset_files import frame_arrays, make_camvid, make_cityscapes, mask_of, pixels, save, table
from mtlkit_datasets.camvid import CamVid
from mtlkit_datasets.cityscapes import CLASSES, Cityscapes

from mtlkit import DataError
from mtlkit.data import left_out


@pytest.mark.parametrize("classes", [7, 19])
def test_of_cityscapes_the_wanted_classes_are_read(tmp_path, classes):
    data = Cityscapes(root=make_cityscapes(tmp_path), classes=classes, verify=True)
    assert data.spec.sizes == {"train": 5, "val": 1, "test": 2}
    assert data.spec.targets["seg"].classes == CLASSES[classes]
    assert len(CLASSES[classes]) == classes
    expected = frame_arrays(1, classes=classes)["label"]
    found = table(data.split("test"))["1"]["seg"].numpy()
    np.testing.assert_array_equal(found[1:], expected[1:])
    assert (found[0] == 255).all()


def test_what_cityscapes_calls_depth_is_its_inverse(tmp_path):
    data = Cityscapes(root=make_cityscapes(tmp_path))
    assert data.spec.targets["depth"].quantity == "inverse-distance"
    expected = frame_arrays(1, classes=7)["depth"] / 20
    found = table(data.split("test"))["1"]["depth"].numpy()
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_labels_of_cityscapes_may_lie_in_one_folder_called_label(tmp_path):
    make_cityscapes(tmp_path)
    for split in ("train", "val"):
        (tmp_path / split / "label_7").rename(tmp_path / split / "label")
    data = Cityscapes(root=tmp_path, verify=True)
    assert data.spec.targets["seg"].labelled == {"train": 5, "val": 1, "test": 2}
    finer = Cityscapes(root=tmp_path, classes=19)
    assert len(finer.spec.targets["seg"].classes) == 19


def test_camvid_has_its_own_splits_and_11_is_not_labelled(tmp_path):
    data = CamVid(root=make_camvid(tmp_path))
    assert data.spec.sizes == {"train": 3, "val": 3, "test": 3}
    assert len(data.spec.targets["seg"].classes) == 11
    sample = data.split("val")[2]
    assert sample["id"] == "0001TP_000002"
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), pixels(2))
    np.testing.assert_array_equal(sample["seg"].numpy(), mask_of(2, 255))


def test_of_camvid_the_bad_alone_is_left_out(tmp_path):
    make_camvid(tmp_path)
    save(tmp_path / "trainannot/0001TP_000001.png", mask_of(12, 0))
    (tmp_path / "val/0001TP_000002.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"^2 problems in .*class id 12 is out of range"):
        CamVid(root=tmp_path)
    data = CamVid(root=tmp_path, on_bad="skip")
    assert left_out(data.problems) == "1 sample, 1 x seg"
    assert data.spec.sizes == {"train": 3, "val": 2, "test": 3}
    assert data.spec.targets["seg"].labelled == {"train": 2, "val": 2, "test": 3}
    assert len(CamVid(root=tmp_path, verify=False, on_bad="skip").problems) == 1
