import numpy as np
import pytest
import torch
from mtlkit_tasks._metric import Angles, Confusion, PixelMean, SampleMean
from torchmetrics.functional.classification import binary_f1_score, multiclass_f1_score
from torchmetrics.functional.classification import multiclass_accuracy as accuracy
from torchmetrics.functional.classification import multiclass_jaccard_index as jaccard

NAMES = ("miou", "weighted_iou", "f1", "pixel_accuracy")


@pytest.mark.parametrize("classes", [2, 5])
def test_confusion_agrees_with_torchmetrics(classes: int) -> None:
    random = torch.Generator().manual_seed(classes)
    guess, truth = torch.randint(0, classes, (2, 3, 20, 30), generator=random)
    truth[:, :5] = 255
    metric = Confusion(classes, NAMES)
    for part in range(3):
        t = truth[part : part + 1]
        metric.update(guess[part : part + 1], t.byte(), t != 255)
    f1 = (
        binary_f1_score(guess, truth, ignore_index=255)
        if classes == 2
        else multiclass_f1_score(guess, truth, classes, average="macro", ignore_index=255)
    )
    values = metric.compute()
    torch.testing.assert_close(values["miou"], jaccard(guess, truth, classes, ignore_index=255))
    torch.testing.assert_close(
        values["weighted_iou"], jaccard(guess, truth, classes, "weighted", ignore_index=255)
    )
    torch.testing.assert_close(values["f1"], f1)
    right = accuracy(guess, truth, classes, "micro", ignore_index=255)
    torch.testing.assert_close(values["pixel_accuracy"], right)


def test_a_class_that_does_not_occur_is_left_out_of_the_means() -> None:
    metric = Confusion(4, NAMES)
    guess, truth = torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 1]])
    metric.update(guess, truth, torch.ones_like(truth, dtype=torch.bool))
    assert metric.compute()["miou"] == pytest.approx(0.5)
    assert metric.compute()["f1"] == pytest.approx(2 / 3)


def test_pixels_are_counted_exactly_beyond_what_float32_holds() -> None:
    metric = Confusion(2, ("miou",))
    metric.matrix = torch.tensor([[2**24, 0], [0, 0]])
    one = torch.zeros(1, 1, dtype=torch.long)
    metric.update(one, one, torch.ones(1, 1, dtype=torch.bool))
    assert metric.matrix[0, 0] == 2**24 + 1


def test_a_sample_mean_leaves_out_what_is_absent_even_if_it_is_nan() -> None:
    metric = SampleMean(("a", "b"))
    present = torch.tensor([True, False, True])
    nan = float("nan")
    metric.update([torch.tensor([1.0, nan, 2.0]), torch.tensor([0.0, nan, 5.0])], present)
    assert metric.compute() == {"a": 1.5, "b": 2.5}
    metric.reset()
    metric.update([torch.ones(3), torch.ones(3)], present)
    assert metric.compute() == {"a": 1.0, "b": 1.0}


def test_a_pixel_mean_is_over_all_pixels_of_all_batches_and_takes_roots_at_the_end() -> None:
    metric = PixelMean(("a", "b"), roots=["b"])
    nan = float("nan")
    for values in ([[1.0, 3.0, nan]], [[8.0, nan, nan]]):
        found = torch.tensor(values)
        metric.update([found, found], ~found.isnan())
    assert metric.compute() == {"a": 4, "b": 2}
    metric.count = torch.tensor(2**24)
    metric.update([torch.ones(1), torch.ones(1)], torch.ones(1, dtype=torch.bool))
    assert metric.count == 2**24 + 1


@pytest.mark.parametrize("number", [1, 2, 101, 1000])
def test_the_median_of_angles_is_exact_to_a_bin(number: int) -> None:
    random = torch.Generator().manual_seed(number)
    angles = 180 * torch.rand(4, number, generator=random, dtype=torch.float64) ** 3
    valid = torch.rand(4, number, generator=random) < 0.7
    valid[0, 0] = True
    metric = Angles((30,))
    for i in (slice(0, 1), slice(1, 4)):
        metric.update(angles[i], valid[i])
    found, known = metric.compute(), angles[valid]
    assert found["median"] == pytest.approx(np.median(known.numpy()), abs=1 / 64)
    assert found["within_30"] == pytest.approx((known < 30).double().mean().item())
    assert found["mean"] == pytest.approx(known.mean().item())


def test_a_limit_itself_is_not_within_it() -> None:
    metric = Angles((11.25, 22.5))
    angles = torch.tensor([[11.25, 22.5, 22.49, 180.0, 0.0]])
    metric.update(angles, torch.ones_like(angles, dtype=torch.bool))
    values = metric.compute()
    assert values["within_11.25"] == pytest.approx(1 / 5)
    assert values["within_22.5"] == pytest.approx(3 / 5)
