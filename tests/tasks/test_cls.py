import pytest
import torch
from made import SIZE, SPEC, batch_for, make
from mtlkit_tasks.cls import Classification

from mtlkit import DatasetSpec, TargetSpec


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_of_the_labelled_images(smoothing: float) -> None:
    task = make(Classification, label_smoothing=smoothing)
    prediction, target, present = batch_for(task)
    expected = 0.0
    for logits, truth in zip(prediction[present], target[present], strict=True):
        log = logits.softmax(0).log()
        expected -= ((1 - smoothing) * log[truth] + smoothing * log.mean()).item()
    total, count = task.loss(prediction, target, present)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count == 4


def test_accuracy_by_hand() -> None:
    task = make(Classification)
    metric = task.metric()
    prediction = torch.eye(3)[[0, 1, 2, 2]]
    present = torch.tensor([True, True, True, False])
    task.update(metric, prediction, torch.tensor([0, 1, 1, 2]), present)
    assert metric.compute()["accuracy"].item() == pytest.approx(2 / 3)


def test_a_class_is_decoded_with_its_probability() -> None:
    task = make(Classification)
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    decoded = task.decode(torch.tensor([0.0, 3.0, 0.0]).log(), picture)
    sure = {"dog": 1.0, "cat": 0.0, "bird": 0.0}
    assert decoded == {"class": "dog", "index": 1, "probability": 1.0, "probabilities": sure}
    decoded = task.decode(torch.tensor([1.0, 2.0, 1.0]).log(), picture)
    assert decoded["probability"] == pytest.approx(0.5)
    assert task.decode_target(torch.tensor(2), picture) == {"class": "bird", "index": 2}


@pytest.mark.parametrize("side", [32, 64, 1000])
def test_two_labels_are_written_below_each_other(side: int) -> None:
    picture = torch.full((3, side, side), 128, dtype=torch.uint8)
    first, second = (Classification(name, SPEC, SIZE, target=name) for name in ("cls", "breed"))
    rows = []
    for task in (first, second):
        drawn = task.draw(picture, task.decode_target(torch.tensor(0), picture))
        assert drawn.shape == picture.shape
        changed = (drawn != picture).any(0).any(1).nonzero().flatten()
        rows.append((changed.min().item(), changed.max().item()))
        assert (drawn > 200).any()
        assert changed.numel() < side / 2
    assert rows[0][1] < rows[1][0]


def test_a_long_name_is_cut_off_within_the_picture() -> None:
    spec = DatasetSpec({"cls": TargetSpec("class", ("a" * 80, "b" * 81))})
    task = Classification("cls", spec, SIZE)
    picture = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    drawn = [task.draw(picture, task.decode_target(torch.tensor(i), picture)) for i in (0, 1)]
    assert not torch.equal(*drawn)
    assert drawn[0].shape == picture.shape


def test_one_class_is_refused() -> None:
    spec = DatasetSpec({"cls": TargetSpec("class", ("only",))})
    with pytest.raises(ValueError, match="at least 2 classes, but label 'cls' has 1"):
        Classification("cls", spec, SIZE)
