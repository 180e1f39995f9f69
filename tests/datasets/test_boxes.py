import json
import re

import numpy as np
import pytest
from dataset_files import voc
from mtlkit_datasets._boxes import box_fault, clipped, largest, mask_extent, read_coco, read_voc

from mtlkit import DataError


def test_the_box_of_a_mask_is_exclusive_at_right_and_bottom():
    mask = np.zeros((6, 9), dtype=bool)
    mask[1:4, 2] = mask[2, 2:7] = True
    assert mask_extent(mask) == (2, 1, 7, 4)
    assert mask_extent(np.zeros((3, 3), dtype=bool)) is None


def test_the_largest_box_counts():
    assert largest([(0, 0, 2, 2), (1, 1, 4, 4), (0, 0, 3, 3)]) == (1, 1, 4, 4)
    assert largest([]) is None


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((0, 0, 24, 16), None),
        ((-1, -0.5, 25, 17), None),
        ((0, 0, 26, 16), r"box \[0, 0, 26, 16\] reaches out of its image of 24x16"),
        ((-2, 0, 5, 5), "reaches out"),
        ((0, 0, 5, 18), "reaches out"),
        ((0, -2, 5, 5), "reaches out"),
        ((24, 3, 25, 5), "lies outside its image"),
        ((5, 3, 5, 9), "empty or inverted"),
        ((5, 9, 9, 3), "empty or inverted"),
        ((float("nan"), 0, 5, 5), "not made of finite numbers"),
        ((0, 0, float("inf"), 5), "not made of finite numbers"),
    ],
)
def test_a_box_must_lie_in_its_image_up_to_rounding(box, fault):
    found = box_fault(box, (16, 24))
    if fault is None:
        assert found is None
    else:
        assert re.search(fault, found)


def test_rounding_is_clipped_away():
    assert clipped((-1, -0.5, 25, 17), (16, 24)) == (0, 0, 24, 16)


def test_voc_counts_from_one_and_includes_both_ends(tmp_path):
    (tmp_path / "a.xml").write_text(voc((1, 1, 2, 2), (5, 4, 12, 11)))
    assert read_voc(tmp_path / "a.xml") == (4, 3, 12, 11)
    (tmp_path / "b.xml").write_text(voc())
    assert read_voc(tmp_path / "b.xml") is None


def billion_laughs():
    """A file that expands to 10^10 characters."""
    more = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(10))
    return f'<!DOCTYPE a [<!ENTITY e0 "ha">{more}]><a><bndbox><xmin>&e10;</xmin></bndbox></a>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", r"a\.xml: not readable as XML"),
        ("", r"a\.xml: not readable as XML"),
        ('<?xml version="1.0" encoding="utf-9"?><a/>', r"a\.xml: not readable as XML"),
        ('<?xml version="1.0" encoding="utf-7"?><a/>', r"a\.xml: not readable as XML"),
        (billion_laughs(), r"a\.xml: not readable as XML"),
        ("<a><bndbox><xmin>3</xmin></bndbox></a>", r"a\.xml: a <bndbox> lacks a number"),
        (voc((1, 2, "x", 4)), "lacks a number"),
        (voc((9, 2, 3, 4)), r"a\.xml: box \[8, 1, 3, 4\] is empty or inverted.*correct or remove"),
        (voc((1, 2, "nan", 4)), "not made of finite"),
    ],
)
def test_a_bad_voc_file_is_named(tmp_path, text, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_voc(tmp_path / "a.xml")


def coco(tmp_path, annotations):
    tree = {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}]}
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({**tree, "annotations": annotations}))
    return path


def test_coco_boxes_are_left_top_width_height(tmp_path):
    notes = [
        {"image_id": 7, "bbox": [1, 2, 3, 4]},
        {"image_id": 7, "bbox": [1, 2, 5, 4]},
        {"image_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"image_id": 7},
    ]
    assert read_coco(coco(tmp_path, notes)) == ({"a.jpg": (1, 2, 6, 6), "b.jpg": None}, {})


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ({"image_id": 7, "bbox": [1, 2, 3]}, "a bbox is not four numbers"),
        ({"image_id": 7, "bbox": ["x", 2, 3, 4]}, "a bbox is not four numbers"),
        ({"image_id": 7, "bbox": [10**400, 2, 3, 4]}, "a bbox is not four numbers"),
        ({"image_id": 7, "bbox": None}, "a bbox is not four numbers"),
        ({"image_id": 7, "bbox": [1, 2, 0, 4]}, "box .* empty or inverted.*; correct or remove it"),
        ({"image_id": 7, "bbox": [1, 2, float("nan"), 4]}, "not made of finite numbers"),
    ],
)
def test_a_bad_coco_annotation_spoils_the_box_of_its_image_alone(tmp_path, note, message):
    good = {"image_id": 7, "bbox": [1, 2, 3, 4]}
    boxes, faults = read_coco(coco(tmp_path, [good, note, {"image_id": 8, "bbox": [1, 2, 3, 4]}]))
    assert boxes == {"b.jpg": (1, 2, 4, 6)}
    assert list(faults) == ["a.jpg"]
    assert re.search(message, faults["a.jpg"])


def test_annotations_of_no_image_are_not_coco(tmp_path):
    with pytest.raises(DataError, match=r"not in COCO format .*99.* it needs images with id"):
        read_coco(coco(tmp_path, [{"image_id": 99, "bbox": [1, 2, 3, 4]}]))


def test_an_image_listed_twice_is_not_coco(tmp_path):
    tree = {"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}], "annotations": []}
    (tmp_path / "boxes.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"not in COCO format .*an image is listed twice"):
        read_coco(tmp_path / "boxes.json")


@pytest.mark.parametrize("text", ["[1, 2", "[]", "{}", "[" * 100_000, "9" * 5000])
def test_a_file_that_is_not_coco_is_named(tmp_path, text):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(DataError, match=r"boxes\.json: not (readable as JSON|in COCO format)"):
        read_coco(tmp_path / "boxes.json")
