from typing import Any

import pytest
import torch
from made import SIZE, SPEC, batch_for, make
from mtlkit_tasks.depth import Depth
from torch import Tensor

from mtlkit import DatasetSpec, TargetSpec

Batch = tuple[Tensor, Tensor, Tensor]


def measured(batch: Batch) -> list[tuple[float, float]]:
    """Prediction and truth of every measured pixel of a labelled sample, one by one."""
    prediction, target, present = batch
    pairs = []
    for i in present.nonzero().flatten().tolist():
        flat = zip(prediction[i].flatten().tolist(), target[i].flatten().tolist(), strict=True)
        pairs += [(p, t) for p, t in flat if t > 0]
    return pairs


PLAIN = {
    "l1": lambda p, t: abs(p - t),
    "mse": lambda p, t: (p - t) ** 2,
    "log": lambda p, t: abs(p - torch.tensor(t, dtype=torch.float64).log().item()),
}


@pytest.mark.parametrize("loss", PLAIN)
def test_the_loss_is_a_plain_sum_over_measured_pixels(loss: str) -> None:
    task = make(Depth, loss=loss)
    batch = batch_for(task)
    pairs = measured(batch)
    total, count = task.loss(*batch)
    assert count == len(pairs)
    assert total.item() == pytest.approx(sum(PLAIN[loss](p, t) for p, t in pairs), rel=1e-12)


def values(task: Depth, *batch: Any) -> dict[str, float]:
    metric = task.metric()
    task.update(metric, *batch)
    return {name: value.item() for name, value in metric.compute().items()}


def test_metrics_are_plain_means_over_measured_pixels() -> None:
    task = make(Depth)
    batch = batch_for(task)
    pairs = measured(batch)
    n = len(pairs)
    assert values(task, *batch) == pytest.approx(
        {
            "abs_err": sum(abs(p - t) for p, t in pairs) / n,
            "rel_err": sum(abs(p - t) / t for p, t in pairs) / n,
            "rmse": (sum((p - t) ** 2 for p, t in pairs) / n) ** 0.5,
            "delta1": sum(p > 0 and max(p / t, t / p) < 1.25 for p, t in pairs) / n,
        },
        rel=1e-9,
    )


def test_metrics_by_hand() -> None:
    truth = torch.tensor([2.0, 4.0, 1.0, 0.0]).view(1, 1, 1, 4)
    found = torch.tensor([2.4, 3.0, -1.0, 9.0]).view(1, 1, 1, 4)
    assert values(make(Depth), found, truth, torch.tensor([True])) == pytest.approx(
        {"abs_err": 3.4 / 3, "rel_err": 2.45 / 3, "rmse": (5.16 / 3) ** 0.5, "delta1": 1 / 3}
    )


def test_with_the_logarithm_the_metrics_are_of_the_depth_itself() -> None:
    prediction, target, present = batch_for(make(Depth))
    prediction = prediction.abs() + 0.1
    plain = values(make(Depth), prediction, target, present)
    task = make(Depth, loss="log")
    assert values(task, prediction.log(), target, present) == pytest.approx(plain)


def test_nan_is_not_measured_either() -> None:
    task = make(Depth)
    prediction, target, present = batch_for(task)
    expected = task.loss(prediction, target, present)
    target[target == 0] = float("nan")
    torch.testing.assert_close(task.loss(prediction, target, present), expected)


def test_depth_is_decoded_in_its_own_unit_at_the_size_of_the_picture() -> None:
    picture = torch.zeros(3, 32, 48, dtype=torch.uint8)
    decoded = make(Depth).decode(torch.full((1, *SIZE), 3.5), picture)
    assert decoded["depth"].dtype == torch.float32
    assert torch.equal(decoded["depth"], torch.full((32, 48), 3.5))
    assert (decoded["least"], decoded["most"]) == (3.5, 3.5)
    logarithm = make(Depth, loss="log").decode(torch.zeros(1, *SIZE), picture)
    assert torch.equal(logarithm["depth"], torch.ones(32, 48))


def test_what_was_not_measured_is_nan_in_the_decoded_truth_and_hatched() -> None:
    task = make(Depth)
    truth = torch.full((1, *SIZE), 2.0)
    truth[:, :4] = 0
    picture = torch.zeros(3, *SIZE, dtype=torch.uint8)
    decoded = task.decode_target(truth, picture)
    assert decoded["depth"][:4].isnan().all()
    assert (decoded["least"], decoded["most"]) == (2, 2)
    drawn = task.draw(picture, decoded)
    assert set(drawn[:, :4].unique().tolist()) == {190, 235}
    assert len(drawn[:, 4:].flatten(1).unique(dim=1)[0]) == 1
    nothing = task.decode_target(torch.zeros(1, *SIZE), picture)
    assert (nothing["least"], nothing["most"]) == (None, None)
    assert task.draw(picture, nothing).shape == picture.shape


def test_a_prediction_below_0_is_drawn_as_the_nearest() -> None:
    task = make(Depth)
    picture = torch.zeros(3, *SIZE, dtype=torch.uint8)
    below, zero = (
        task.draw(picture, task.decode(torch.full((1, *SIZE), value), picture))
        for value in (-1.0, 0.0)
    )
    assert torch.equal(below, zero)


def test_colours_end_where_the_user_says() -> None:
    picture = torch.zeros(3, *SIZE, dtype=torch.uint8)

    def drawn(value: float, label: str = "depth", **options: float) -> list[int]:
        task = Depth(label, SPEC, SIZE, **options)
        decoded = task.decode(torch.full((1, *SIZE), value), picture)
        return task.draw(picture, decoded)[:, 0, 0].tolist()

    last = drawn(10)
    assert drawn(9) != last == drawn(99)
    assert drawn(3, drawn_to=3) == last == drawn(0.5, "disparity")
    with pytest.raises(ValueError, match="drawn_to must be above 0, but got 0"):
        make(Depth, drawn_to=0)


def test_a_map_of_anything_else_is_refused() -> None:
    message = (
        "task 'x' learns a label of kind 'distance map or inverse-distance map' called 'normals', "
        "which is a direction map in this dataset; of that kind it has: depth, disparity"
    )
    with pytest.raises(ValueError, match=message):
        Depth("x", SPEC, SIZE, target="normals")
    with pytest.raises(ValueError, match="called 'heights', which is a plain map"):
        Depth("x", SPEC, SIZE, target="heights")
    with pytest.raises(ValueError, match="called 'seg', which is a mask"):
        Depth("x", SPEC, SIZE, target="seg")
    stereo = DatasetSpec({"depth": TargetSpec("map", channels=2, quantity="distance")})
    with pytest.raises(ValueError, match="needs a map of 1 channel, but 'depth' has 2"):
        Depth("x", stereo, SIZE)
