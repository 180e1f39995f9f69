import math

import pytest
import torch
from made import SIZE, SPEC, batch_for, make
from mtlkit_tasks import _draw
from mtlkit_tasks.seg import Segmentation
from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, TargetSpec


def labelled_pixels() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    task = make(Segmentation)
    prediction, target, present = batch_for(task)
    valid = (target != 255) & present[:, None, None]
    return prediction, target, present, prediction.movedim(1, -1)[valid], target[valid].long()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_minus_the_log_of_the_true_class(smoothing: float) -> None:
    prediction, target, present, logits, truth = labelled_pixels()
    log = logits - logits.exp().sum(1, keepdim=True).log()
    right = log[torch.arange(len(truth)), truth]
    expected = -((1 - smoothing) * right + smoothing * log.mean(1)).sum()
    task = make(Segmentation, label_smoothing=smoothing)
    total, count = task.loss(prediction, target, present)
    torch.testing.assert_close(total, expected)
    assert count == len(truth) > 0


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_is_the_mean_over_classes_of_the_binary_focal_loss(gamma: float) -> None:
    prediction, target, present, logits, truth = labelled_pixels()
    right = torch.where(torch.eye(3, dtype=torch.bool)[truth], logits, -logits).sigmoid()
    expected = (-((1 - right) ** gamma) * right.log()).mean(1).sum()
    total, count = make(Segmentation, loss="focal", gamma=gamma).loss(prediction, target, present)
    torch.testing.assert_close(total, expected)
    assert count == len(truth)


@pytest.mark.parametrize(
    ("options", "false_alarm", "miss"),
    [
        ({"loss": "dice"}, 0.5, 0.5),
        ({"loss": "jaccard"}, 1.0, 1.0),
        ({"loss": "tversky"}, 0.3, 0.7),
        ({"loss": "tversky", "miss_weight": 0.5}, 0.5, 0.5),
    ],
)
def test_overlap_losses_are_means_over_the_classes_of_each_image(
    options: dict[str, object], false_alarm: float, miss: float
) -> None:
    task = make(Segmentation, **options)
    prediction, target, present = batch_for(task)
    target[0][target[0] == 2] = 0
    expected = 0.0
    images = 0
    for logits, truth in zip(prediction[present], target[present], strict=True):
        valid = truth != 255
        images += bool(valid.any())
        probability = logits.softmax(0)[:, valid]
        for c in range(3):
            true = (truth[valid] == c).double()
            if true.any():
                hit = (probability[c] * true).sum()
                wrong = (probability[c] * (1 - true)).sum()
                missed = ((1 - probability[c]) * true).sum()
                expected += (1 - hit / (hit + false_alarm * wrong + miss * missed)).item() / 3
    total, count = task.loss(prediction, target, present)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count == images == 3  # one of four has no labelled pixel


def test_an_ignored_pixel_has_no_gradient_whatever_was_predicted() -> None:
    for loss in ("ce", "focal", "dice"):
        task = make(Segmentation, loss=loss)
        prediction, target, present = batch_for(task)
        prediction[0, :, 0, 0] = float("inf")
        prediction.requires_grad_()
        task.loss(prediction, target, present)[0].backward()
        assert prediction.grad is not None
        assert prediction.grad[0, :, :3].eq(0).all()
        assert prediction.grad[0, :, 3:].ne(0).any()


def test_metrics_of_two_classes_by_hand() -> None:
    task = Segmentation("pet", SPEC, SIZE)
    truth = torch.tensor([[[0, 0, 0, 1, 1, 255]]])
    guess = torch.tensor([[[0, 0, 1, 1, 0, 1]]])
    metric = task.metric()
    prediction = torch.nn.functional.one_hot(guess, 2).movedim(-1, 1).float()
    task.update(metric, prediction, truth, torch.tensor([True]))
    values = {name: value.item() for name, value in metric.compute().items()}
    background, pet = 2 / 4, 1 / 3
    assert values == pytest.approx(
        {
            "miou": (background + pet) / 2,
            "weighted_iou": (3 * background + 2 * pet) / 5,
            "f1": 2 * 1 / (2 * 1 + 1 + 1),
            "pixel_accuracy": 3 / 5,
        }
    )


def test_a_class_is_decoded_for_every_pixel_of_the_picture() -> None:
    task = make(Segmentation)
    prediction = torch.zeros(3, *SIZE)
    prediction[1, :8] = 5
    prediction[2, 8:] = 5
    picture = torch.zeros(3, 32, 72, dtype=torch.uint8)
    mask = task.decode(prediction, picture)["mask"]
    assert mask.dtype == torch.uint8
    assert mask.shape == (32, 72)
    assert mask[:15].eq(1).all()
    assert mask[17:].eq(2).all()


def test_what_is_not_labelled_is_255_in_the_decoded_truth() -> None:
    spec = DatasetSpec({"seg": TargetSpec("mask", ("a", "b"), ignore_index=-1)})
    task = Segmentation("seg", spec, SIZE)
    mask = task.decode_target(torch.tensor([[0, 1], [-1, 1]]), torch.zeros(3, 4, 6))["mask"]
    expected = torch.tensor([[0, 1], [255, 1]]).repeat_interleave(2, 0).repeat_interleave(3, 1)
    assert torch.equal(mask, expected.byte())


def test_classes_but_the_background_are_tinted() -> None:
    task = make(Segmentation)
    picture = torch.full((3, 40, 40), 100, dtype=torch.uint8)
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[10:20], mask[20:30], mask[30:] = 1, 2, 255
    drawn = task.draw(picture, {"mask": mask})
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn[:, :10], picture[:, :10])
    assert torch.equal(drawn[:, 30:], picture[:, 30:])
    inside, border = drawn[:, 15, 5], drawn[:, 10, 5]
    assert not torch.equal(inside, picture[:, 0, 0])
    assert not torch.equal(inside, border)
    assert not torch.equal(inside, drawn[:, 25, 5])
    assert torch.equal(picture, torch.full_like(picture, 100))


@pytest.mark.parametrize("count", [0, 1, 256])
def test_too_few_or_too_many_classes_are_refused(count: int) -> None:
    spec = DatasetSpec({"seg": TargetSpec("mask", tuple(map(str, range(count))))})
    with pytest.raises(ValueError, match=f"2 to 255 classes, but label 'seg' has {count}"):
        Segmentation("seg", spec, SIZE)


def test_a_uniform_guess_costs_the_log_of_the_number_of_classes() -> None:
    task = make(Segmentation)
    _, target, present = batch_for(task)
    total, count = task.loss(torch.zeros(6, 3, *SIZE), target, present)
    assert (total / count).item() == pytest.approx(math.log(3), rel=1e-6)


def test_a_contour_is_every_pixel_with_another_class_in_a_square_around_it() -> None:
    torch.manual_seed(0)
    blocks = torch.randint(0, 4, (60, 90), dtype=torch.uint8)
    mask = blocks.repeat_interleave(9, 0).repeat_interleave(9, 1)
    reach = _draw._line(mask)
    assert reach > 3
    square = (2 * reach + 1, 1, reach)
    high, low = (F.max_pool2d(v, *square)[0] for v in (mask[None].float(), -mask[None].float()))
    assert torch.equal(_draw._border(mask), high != -low)
