import numpy as np
import pytest
import torch
from made import SIZE, SPEC, batch_for, make
from mtlkit_tasks.normals import Normals
from torch import Tensor

from mtlkit import DatasetSpec, TargetSpec

YES = torch.tensor([True])


def at(*degrees: float) -> Tensor:
    """A row of vectors [1, 3, 1, W] that stand at these angles to the z axis."""
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.sin(), torch.zeros_like(radians), radians.cos()])[None, :, None]


def values(prediction: Tensor, target: Tensor, present: Tensor = YES) -> dict[str, float]:
    task = make(Normals)
    metric = task.metric()
    task.update(metric, prediction, target, present)
    return {name: value.item() for name, value in metric.compute().items()}


def test_loss_and_metrics_are_those_of_plain_formulas() -> None:
    task = make(Normals)
    batch = batch_for(task)
    prediction, target, present = (x.numpy() for x in batch)
    p, t = (np.moveaxis(x[present], 1, -1).reshape(-1, 3) for x in (prediction, target))
    p, t = (x[(t != 0).any(1)] for x in (p, t))
    cosine = (p * t).sum(1) / np.linalg.norm(p, axis=1)
    total, count = task.loss(*batch)
    assert count == len(t)
    assert total.item() == pytest.approx((1 - cosine).sum(), rel=1e-12)
    angles = np.degrees(np.arccos(cosine))
    found = values(*batch)
    assert found.pop("median") == pytest.approx(np.median(angles), abs=1 / 64)
    assert found == pytest.approx(
        {
            "mean": angles.mean(),
            **{f"within_{limit:g}": (angles < limit).mean() for limit in (11.25, 22.5, 30)},
        },
        rel=1e-6,
    )


def test_metrics_by_hand() -> None:
    found = values(at(0, 10, 20, 29, 100), at(0, 0, 0, 0, 0))
    assert found == pytest.approx(
        {"mean": 31.8, "median": 20, "within_11.25": 0.4, "within_22.5": 0.6, "within_30": 0.8},
        abs=1 / 64,
    )


def test_the_length_of_a_prediction_does_not_matter() -> None:
    prediction, target, present = batch_for(make(Normals))
    expected = values(prediction, target, present)
    assert values(prediction * 7, target, present) == pytest.approx(expected)
    task = make(Normals)
    torch.testing.assert_close(
        task.loss(prediction * 7, target, present), task.loss(prediction, target, present)
    )


def test_small_angles_are_right_in_single_precision() -> None:
    prediction, target = (x.float() for x in (at(*[0.01] * 9), at(*[0.0] * 9)))
    assert values(prediction, target)["mean"] == pytest.approx(0.01, rel=1e-4)


def test_a_prediction_of_nothing_is_a_right_angle_off_and_has_a_finite_gradient() -> None:
    nothing = torch.zeros(1, 3, *SIZE, requires_grad=True)
    target = torch.zeros(1, 3, *SIZE)
    target[:, 2] = 1
    assert values(nothing.detach(), target)["mean"] == 90
    total, count = make(Normals).loss(nothing, target, YES)
    assert total == count
    total.backward()
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


def test_a_prediction_that_is_not_a_number_is_no_better_than_any_other() -> None:
    found = values(at(0).float() * float("nan"), at(0).float())
    assert found["median"] >= 180
    assert found["within_30"] == 0


def test_normals_are_decoded_as_unit_vectors_and_drawn_in_red_green_and_blue() -> None:
    task = make(Normals)
    picture = torch.zeros(3, 32, 48, dtype=torch.uint8)
    prediction = torch.zeros(3, *SIZE)
    prediction[0] = -4
    decoded = task.decode(prediction, picture)
    assert decoded["normals"].dtype == torch.float32
    assert decoded["normals"].shape == (3, 32, 48)
    assert decoded["normals"][:, 5, 5].tolist() == [-1, 0, 0]
    assert task.draw(picture, decoded)[:, 5, 5].tolist() == [0, 128, 128]


def test_what_was_not_measured_is_nan_in_the_decoded_truth_and_hatched() -> None:
    task = make(Normals)
    picture = torch.zeros(3, *SIZE, dtype=torch.uint8)
    truth = torch.zeros(3, *SIZE)
    truth[2, 4:] = 1
    decoded = task.decode_target(truth, picture)
    assert decoded["normals"][:, :4].isnan().all()
    drawn = task.draw(picture, decoded)
    assert set(drawn[:, :4].unique().tolist()) == {190, 235}
    assert drawn[:, 4, 0].tolist() == [128, 128, 255]


def test_nan_is_not_measured_either() -> None:
    task = make(Normals)
    prediction, target, present = batch_for(task)
    expected = task.loss(prediction, target, present)
    target[:, :, :3] = float("nan")
    torch.testing.assert_close(task.loss(prediction, target, present), expected)


def test_a_map_of_anything_else_is_refused() -> None:
    with pytest.raises(ValueError, match="'direction map' called 'depth', which is a distance map"):
        Normals("x", SPEC, SIZE, target="depth")
    flat = DatasetSpec({"normals": TargetSpec("map", channels=2, quantity="direction")})
    with pytest.raises(ValueError, match="needs a map of 3 channels, but 'normals' has 2"):
        Normals("x", flat, SIZE)
