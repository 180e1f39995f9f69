"""Every sample exactly once, and the same whatever the processes and workers."""

import pytest
import torch
from torchvision import tv_tensors
from toys import SIZE, ToyData

from mtlkit import TargetSpec
from mtlkit.geometry import View
from mtlkit.loader import Batches, Key, Prepared, make_loader


def seen(length: int, size: int, world: int, *, train: bool) -> list[list[Key]]:
    ranks = [
        list(Batches(length, size, train=train, seed=1, rank=rank, world=world))
        for rank in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1, "processes differ in number of batches"
    return [[key for rank in ranks for key in rank[i]] for i in range(len(ranks[0]))]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 7, 12, 13])
def test_evaluation_counts_every_sample_once_on_any_number_of_processes(
    world: int, length: int
) -> None:
    valid = [k.position for keys in seen(length, 2, world, train=False) for k in keys if k.valid]
    assert sorted(valid) == list(range(length))


def test_processes_share_out_the_batches_of_one_process() -> None:
    one = seen(24, 6, 1, train=True)
    two = seen(24, 3, 2, train=True)
    assert [sorted(batch) for batch in one] == [sorted(batch) for batch in two]


def test_training_leaves_an_incomplete_batch_out_unless_it_is_the_only_one() -> None:
    assert [len(batch) for batch in seen(10, 4, 1, train=True)] == [4, 4]
    assert [len(batch) for batch in seen(3, 4, 1, train=True)] == [3]


def test_epochs_are_shuffled_differently_and_reproducibly() -> None:
    batches = Batches(50, 50, train=True, seed=1)
    first, again = list(batches), list(batches)
    batches.epoch = 1
    positions = [[key.position for key in run[0]] for run in (first, again, list(batches))]
    assert positions[0] == positions[1] != positions[2]
    assert sorted(positions[2]) == list(range(50))


def test_starting_in_the_middle_yields_the_rest_of_the_epoch() -> None:
    batches = Batches(24, 4, train=True, seed=1)
    whole = list(batches)
    batches.start = 4
    assert list(batches) == whole[4:]
    assert len(batches) == 2


def prepared(**options: object) -> Prepared:
    data = ToyData(labelled=(True, False))
    return Prepared(data.split("train"), data.spec.targets, SIZE, **options)


def test_augmentation_depends_on_seed_epoch_and_sample_alone() -> None:
    one = prepared(augment="strong", seed=5)
    torch.manual_seed(0)
    first = one[Key(2, 3, True)]
    torch.rand(10)
    again = one[Key(2, 3, True)]
    assert torch.equal(first["image"], again["image"])
    assert first["seed"] == again["seed"]
    assert not torch.equal(first["image"], one[Key(3, 3, True)]["image"])
    other = prepared(augment="strong", seed=6)
    assert not torch.equal(first["image"], other[Key(2, 3, True)]["image"])


def test_loading_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    prepared(augment="strong")[Key(0, 0, True)]
    loader = make_loader(prepared(), Batches(8, 4, train=True), workers=0, pin_memory=False)
    list(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_workers_load_what_no_worker_loads() -> None:
    one = prepared(augment="strong")
    loaders = [
        make_loader(one, Batches(24, 4, train=True), workers=workers, pin_memory=False)
        for workers in (0, 2)
    ]
    for alone, helped in zip(*loaders, strict=True):
        assert alone["id"] == helped["id"]
        assert torch.equal(alone["image"], helped["image"])


def test_missing_labels_and_padding_are_marked_absent() -> None:
    one = prepared()
    batch = one.collate([one[Key(0, 0, True)], one[Key(0, 1, True)], one[Key(0, 2, False)]])
    assert batch["present"]["a"].tolist() == [True, True, False]
    assert batch["present"]["b"].tolist() == [True, False, False]
    assert batch["valid"].tolist() == [True, True, False]
    assert batch["targets"]["b"].shape == (3, 3)
    assert batch["image"].dtype == torch.uint8


class Boxed:
    """A 20 x 40 picture whose right half is class 1 and boxed."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> dict[str, object]:
        mask = torch.zeros(20, 40, dtype=torch.uint8)
        mask[:, 20:] = 1
        box = tv_tensors.BoundingBoxes(
            [[20.0, 0.0, 40.0, 20.0]], format="XYXY", canvas_size=(20, 40)
        )
        image = tv_tensors.Image(mask[None].expand(3, -1, -1) * 255)
        return {"image": image, "id": "x", "seg": tv_tensors.Mask(mask), "bbox": box}


TARGETS = {"seg": TargetSpec("mask", ("a", "b")), "bbox": TargetSpec("box")}


def test_boxes_are_normalised_and_stay_on_their_masks() -> None:
    sample = Prepared(Boxed(), TARGETS, (16, 16))[Key(0, 0, True)]
    torch.testing.assert_close(sample["labels"]["bbox"], torch.tensor([0.5, 0.0, 1.0, 1.0]))
    for epoch in range(20):
        one = Prepared(Boxed(), TARGETS, (32, 32), augment="strong")[Key(epoch, 0, True)]
        if "bbox" not in one["labels"]:
            continue
        columns = one["labels"]["seg"].any(0).nonzero().flatten() / 32
        x1, _, x2, _ = one["labels"]["bbox"].tolist()
        assert abs(x1 - float(columns.min())) <= 1.01 / 32
        assert abs(x2 - float(columns.max()) - 1 / 32) <= 1.01 / 32


def test_a_box_that_was_cropped_away_is_no_label() -> None:
    one = Prepared(Boxed(), TARGETS, (16, 16))
    assert one._label(TARGETS["bbox"], torch.tensor([[3.0, 3, 9, 16]]), View(0, 8, 16, 9)) is None
    kept = one._label(TARGETS["bbox"], torch.tensor([[3.0, 3, 9, 16]]), View(0, 0, 16, 6))
    torch.testing.assert_close(kept, torch.tensor([0.5, 3 / 16, 1, 1]))


def test_a_mask_that_was_cropped_to_nothing_labelled_is_no_label() -> None:
    one = Prepared(Boxed(), TARGETS, (16, 16))
    mask = torch.full((16, 16), 255, dtype=torch.uint8)
    mask[0, 15] = 1
    assert one._label(TARGETS["seg"], mask, View(0, 0, 16, 8)) is None
    assert one._label(TARGETS["seg"], mask, View(0, 8, 16, 8)) is not None


class Slanted:
    """A picture that is bright at the right, of a wall 2 m away that faces right."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> dict[str, object]:
        ramp = torch.linspace(0, 255, 60).byte().expand(3, 40, 60)
        normals = torch.tensor([0.6, 0.0, 0.8])[:, None, None].repeat(1, 40, 60)
        return {
            "image": tv_tensors.Image(ramp),
            "id": "x",
            "normals": tv_tensors.Mask(normals),
            "depth": tv_tensors.Mask(torch.full((1, 40, 60), 2.0)),
        }


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_a_mirrored_wall_faces_the_other_way_and_an_enlarged_one_is_nearer(augment: str) -> None:
    targets = {
        "normals": TargetSpec("map", channels=3, quantity="direction"),
        "depth": TargetSpec("map", quantity="distance"),
    }
    one = Prepared(Slanted(), targets, (32, 32), augment=augment)
    turned = 0
    for epoch in range(20):
        sample = one[Key(epoch, 0, True)]
        grey = sample["image"].float().mean((0, 1))
        mirrored = bool(grey[0] > grey[-1])
        x = sample["labels"]["normals"][0]
        assert bool((x < 0).all()) if mirrored else bool((x > 0).all())
        assert sample["labels"]["depth"].max() < 2
        turned += mirrored
    assert 0 < turned < 20
