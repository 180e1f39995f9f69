from collections import Counter

import pytest
import torch
from dataset_files import table
from mtlkit_datasets.shapes import KINDS, Shape, Shapes
from torchvision import tv_tensors


def same(first, second):
    return all(
        torch.equal(first[key], second[key]) if key != "id" else first[key] == second[key]
        for key in first.keys() | second.keys()
    )


def test_a_sample_is_what_the_contract_says():
    sample = Shapes().split("train")[0]
    assert list(sample) == ["image", "id", "seg", "cls", "bbox"]
    assert isinstance(sample["image"], tv_tensors.Image)
    assert sample["image"].shape == (3, 64, 64)
    assert sample["image"].dtype == torch.uint8
    assert isinstance(sample["seg"], tv_tensors.Mask)
    assert sample["seg"].shape == (64, 64)
    assert sample["seg"].dtype == torch.uint8
    assert sample["cls"].dtype == torch.int64
    assert sample["cls"].shape == ()
    assert isinstance(sample["bbox"], tv_tensors.BoundingBoxes)
    assert sample["bbox"].dtype == torch.float32
    assert sample["bbox"].format is tv_tensors.BoundingBoxFormat.XYXY
    assert sample["bbox"].canvas_size == (64, 64)


def test_the_options_size_the_splits_and_the_pictures():
    shapes = Shapes(size=48, train=7, val=3, test=2)
    assert shapes.spec.sizes == {"train": 7, "val": 3, "test": 2}
    assert shapes.image_size == 48
    assert shapes.spec.targets["seg"].labelled == {"train": 7, "val": 3, "test": 2}
    assert shapes.split("train")[6]["image"].shape == (3, 48, 48)
    assert len(shapes.split("val")) == 3
    assert Shapes.image_size == 64


def test_class_mask_and_box_agree():
    for sample in table(Shapes(train=200).split("train")).values():
        kind, mask = int(sample["cls"]) + 1, sample["seg"]
        left, top, right, bottom = (int(edge) for edge in sample["bbox"][0])
        inside = mask[top:bottom, left:right] == kind
        assert inside.any(dim=0).all()
        assert inside.any(dim=1).all()
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()
        small = (mask > 0).sum() - inside.sum()
        assert small < inside.sum()


def test_a_small_shape_is_clearly_smaller_than_the_large_one():
    shapes = Shapes(train=100).split("train")
    for sample in table(shapes).values():
        mask = sample["seg"].clone()
        left, top, right, bottom = (int(edge) for edge in sample["bbox"][0])
        large = (mask[top:bottom, left:right] == sample["cls"] + 1).sum()
        mask[top:bottom, left:right] = 0
        assert (mask > 0).sum() <= large


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_the_area_of_every_kind_is_what_was_asked_for(kind):
    for angle in (0.0, 0.3, 1.9):
        shape = Shape(kind, (100.2, 99.7), angle, 80)
        assert (shape.distance(200) < 0).sum() == pytest.approx(80**2, rel=0.01)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_shape_reaches_its_radius_and_no_further(kind):
    shape = Shape(kind, (100.0, 100.0), 0.0, 80)
    ys, xs = (shape.distance(200) < 0).nonzero()
    reach = (((xs - 99.5) ** 2 + (ys - 99.5) ** 2) ** 0.5).max()
    assert shape.radius - 2 < reach <= shape.radius


def test_kinds_are_balanced_and_one_to_three_shapes_are_shown():
    samples = table(Shapes(train=1000).split("train")).values()
    counts = Counter(int(sample["cls"]) for sample in samples)
    assert set(counts) == set(range(len(KINDS)))
    assert min(counts.values()) > 0.8 * 1000 / len(KINDS)
    kinds_shown = Counter(len(sample["seg"].unique()) - 1 for sample in samples)
    assert set(kinds_shown) == {1, 2, 3}


def test_a_sample_depends_on_seed_split_and_index_alone():
    forth, back = Shapes(train=9).split("train"), Shapes(train=1000, val=5).split("train")
    backwards = [back[index] for index in reversed(range(9))][::-1]
    assert all(same(forth[index], backwards[index]) for index in range(9))
    assert not torch.equal(forth[0]["image"], forth[1]["image"])
    assert not torch.equal(forth[0]["image"], Shapes(seed=1).split("train")[0]["image"])


def test_splits_share_no_picture():
    shapes = Shapes(train=50, val=50, test=50)
    seen = [
        sample["image"].numpy().tobytes()
        for name in ("train", "val", "test")
        for sample in table(shapes.split(name)).values()
    ]
    assert len(set(seen)) == 150


def test_global_random_state_is_neither_used_nor_touched():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Shapes().split("val")[3]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert same(first, Shapes().split("val")[3])


def test_shapes_stand_out_from_the_background():
    for sample in table(Shapes(train=30).split("train")).values():
        image, mask = sample["image"].float(), sample["seg"] > 0
        spread = image.amax(dim=0) - image.amin(dim=0)
        assert spread[mask].mean() > spread[~mask].mean() + 20


def test_an_index_beyond_the_end_is_an_error():
    with pytest.raises(IndexError, match="sample 100 of 100"):
        Shapes().split("val")[100]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 31}, "size is at least 32 pixels, got 31"),
        ({"train": 0}, "train is a number of samples, at least 1, got 0"),
        ({"seed": -1}, "seed is at least 0, got -1"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Shapes(**options)


def test_labels_are_taken_from_the_share_of_training_samples_that_is_asked_for():
    shapes = Shapes(train=20, val=4, keep_labels={"seg": 0.25, "cls": 0})
    samples = [shapes.split("train")[i] for i in range(20)]
    assert sum("seg" in sample for sample in samples) == 5
    assert not any("cls" in sample for sample in samples)
    assert all("bbox" in sample for sample in samples)
    labelled = {name: target.labelled["train"] for name, target in shapes.spec.targets.items()}
    assert labelled == {"seg": 5, "cls": 0, "bbox": 20}
    assert all("seg" in sample for sample in map(shapes.split("val").__getitem__, range(4)))
    assert shapes.spec.targets["seg"].labelled["val"] == 4


def test_a_smaller_share_is_a_part_of_a_larger_one():
    def kept(share):
        samples = Shapes(train=40, keep_labels={"seg": share}).split("train")
        return {i for i in range(40) if "seg" in samples[i]}

    assert kept(0.1) < kept(0.5) < kept(0.9)


def test_labels_are_taken_from_different_samples():
    samples = Shapes(train=40, keep_labels={"seg": 0.5, "cls": 0.5}).split("train")
    kept = [{i for i in range(40) if label in samples[i]} for label in ("seg", "cls")]
    assert kept[0] != kept[1]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"sg": 0.5}, "keep_labels names 'sg', but the labels are bbox, cls, seg"),
        ({"seg": 1.5}, r"keep_labels is a share in \[0, 1\], got seg=1.5"),
    ],
)
def test_a_share_that_cannot_be_is_refused(keep, message):
    with pytest.raises(ValueError, match=message):
        Shapes(keep_labels=keep)
