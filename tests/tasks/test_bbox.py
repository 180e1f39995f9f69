from typing import Any

import pytest
import torch
from made import SIZE, batch_for, make
from mtlkit_tasks.bbox import BBox
from torch import Tensor
from torchvision.ops import distance_box_iou_loss, generalized_box_iou_loss

HALF = (0.25, 0.25, 0.75, 0.75)


def area(box: list[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(a: list[float], b: list[float]) -> tuple[float, float]:
    """Intersection over union, and the generalised one."""
    shared = area([*map(max, a[:2], b[:2]), *map(min, a[2:], b[2:])])
    hull = area([*map(min, a[:2], b[:2]), *map(max, a[2:], b[2:])])
    union = area(a) + area(b) - shared
    return shared / union, shared / union - (hull - union) / hull


def ordered(box: Tensor) -> list[float]:
    x1, y1, x2, y2 = box.tolist()
    return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]


@pytest.mark.parametrize("loss", ["mse", "l1", "smooth-l1"])
def test_losses_over_numbers(loss: str) -> None:
    task = make(BBox, loss=loss, beta=0.2)
    prediction, target, present = batch_for(task)
    error = ((prediction + torch.tensor(HALF).double()) - target)[present].flatten().abs()
    expected = {
        "mse": error.square(),
        "l1": error,
        "smooth-l1": torch.where(error < 0.2, error.square() / 0.4, error - 0.1),
    }[loss]
    total, count = task.loss(prediction, target, present)
    torch.testing.assert_close(total, expected.sum())
    assert count == 16


def test_giou_orders_the_corners_first() -> None:
    task = make(BBox, loss="giou")
    prediction, target, present = batch_for(task)
    boxes = (prediction + torch.tensor(HALF).double())[present]
    assert (boxes[:, :2] > boxes[:, 2:]).any(), "no inverted box in this test"
    expected = sum(
        1 - iou(ordered(box), truth.tolist())[1]
        for box, truth in zip(boxes, target[present], strict=True)
    )
    total, count = task.loss(prediction, target, present)
    assert total.item() == pytest.approx(expected, rel=1e-6)  # torchvision adds 1e-7 to areas
    assert count == 4


@pytest.mark.parametrize(
    ("loss", "theirs"), [("giou", generalized_box_iou_loss), ("diou", distance_box_iou_loss)]
)
def test_losses_over_areas_and_their_gradients_are_torchvisions(loss: str, theirs: Any) -> None:
    task = make(BBox, loss=loss)
    random = torch.Generator().manual_seed(0)
    prediction = torch.randn(200, 4, generator=random, dtype=torch.float64) / 4
    corners = torch.rand(200, 2, 2, generator=random, dtype=torch.float64)
    truth = corners.sort(1).values.flatten(1)
    every = torch.ones(200, dtype=torch.bool)
    found = []
    for total in (
        lambda raw: task.loss(raw, truth, every)[0],
        lambda raw: theirs(sorted_corners(raw + raw.new_tensor(HALF)), truth, reduction="sum"),
    ):
        raw = prediction.clone().requires_grad_()
        value = total(raw)
        found.append((value.detach(), *torch.autograd.grad(value, raw)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def sorted_corners(box: torch.Tensor) -> torch.Tensor:
    return box.view(-1, 2, 2).sort(1).values.flatten(1)


@pytest.mark.parametrize("loss", ["giou", "diou"])
def test_empty_boxes_have_finite_losses_and_gradients(loss: str) -> None:
    task = make(BBox, loss=loss)
    prediction = (0.5 - torch.tensor([HALF])).requires_grad_()
    total, _ = task.loss(prediction, torch.full((1, 4), 0.5), torch.tensor([True]))
    total.backward()
    assert total.isfinite()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


def test_a_prediction_of_zero_is_the_centred_box_of_half_the_size() -> None:
    picture = torch.zeros(3, 100, 200, dtype=torch.uint8)
    assert make(BBox).decode(torch.zeros(4), picture) == {"box": [50.0, 25.0, 150.0, 75.0]}


def test_metrics_in_pixels_of_the_networks_input() -> None:
    task = make(BBox)
    prediction, target, present = batch_for(task)
    metric = task.metric()
    task.update(metric, prediction, target, present)
    height, width = SIZE
    boxes = (prediction + torch.tensor(HALF).double())[present]
    scale = torch.tensor([width, height, width, height])
    squared = ((boxes - target[present]) * scale).square().mean()
    overlap = [
        iou(ordered(box.clamp(0, 1)), truth.tolist())[0]
        for box, truth in zip(boxes, target[present], strict=True)
    ]
    values = metric.compute()
    assert values["l2"].item() == pytest.approx(squared.item())
    assert values["iou"].item() == pytest.approx(sum(overlap) / 4)


def test_a_box_is_decoded_ordered_and_clipped_in_the_pictures_pixels() -> None:
    picture = torch.zeros(3, 100, 200, dtype=torch.uint8)
    raw = torch.tensor([0.9, 0.3, -0.3, -0.1]) - torch.tensor(HALF)
    assert make(BBox).decode(raw, picture)["box"] == pytest.approx([0, 0, 180, 30])
    target = torch.tensor([0.1, 0.2, 0.5, 1.0])
    assert make(BBox).decode_target(target, picture)["box"] == pytest.approx([20, 20, 100, 100])


@pytest.mark.parametrize("side", [64, 1000])
def test_a_drawn_box_touches_only_its_outline(side: int) -> None:
    picture = torch.full((3, side, side), 128, dtype=torch.uint8)
    task = make(BBox)
    box = [side * 0.25, side * 0.25, side * 0.75, side * 0.75]
    changed = (task.draw(picture, {"box": box}) != picture).any(0)
    edge, margin = side // 4, side // 30
    assert changed[edge, side // 2]
    assert changed[side // 2, edge]
    assert not changed[side // 3 : 2 * side // 3, side // 3 : 2 * side // 3].any()
    assert not changed[: edge - margin].any()


def test_a_box_as_large_as_the_picture_is_visible_on_all_sides() -> None:
    picture = torch.full((3, 50, 60), 128, dtype=torch.uint8)
    drawn = make(BBox).draw(picture, {"box": [0.0, 0.0, 60.0, 50.0]}) != picture
    assert drawn[:, 0, 30].any()
    assert drawn[:, -1, 30].any()
    assert drawn[:, 25, 0].any()
    assert drawn[:, 25, -1].any()


def test_a_beta_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="beta must be positive, but got 0"):
        make(BBox, beta=0)
