"""Each task against its formula, and every task against what a task promises."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassF1Score, MulticlassJaccardIndex
from torchvision.ops import box_iou, generalized_box_iou_loss

from mtlkit import ConfigError, DatasetSpec, TargetSpec, Task, create

SIZE = (16, 24)
SPEC = DatasetSpec(
    {
        "seg": TargetSpec("mask", ("background", "cat", "dog")),
        "pair": TargetSpec("mask", ("background", "pet")),
        "cls": TargetSpec("class", ("cat", "dog", "bird")),
        "breed": TargetSpec("class", tuple("abcde")),
        "bbox": TargetSpec("box"),
    }
)
CASES = [
    ("seg", {"loss": "ce"}),
    ("seg", {"loss": "ce", "label_smoothing": 0.1}),
    ("seg", {"loss": "focal"}),
    ("seg", {"loss": "dice"}),
    ("seg", {"loss": "jaccard"}),
    ("cls", {}),
    ("cls", {"label_smoothing": 0.2}),
    *[("bbox", {"loss": loss}) for loss in ("mse", "l1", "smooth-l1", "giou", "diou")],
    ("denoise", {}),
    ("edge", {"loss": "l1"}),
    ("edge", {"loss": "bce"}),
    ("colourise", {}),
]
every_task = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{n}-{'-'.join(map(str, o.values()))}" for n, o in CASES]
)


def make(name: str, options: dict[str, Any] | None = None, id: str | None = None) -> Task:
    task: Task = create("task", name, id or name, SPEC, SIZE, **(options or {}))
    return task


def draw(task: Task, count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A raw prediction and a target, float64 where they are floats."""
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, *SIZE, generator=random)
    shape = (
        (count, task.out_channels, *SIZE) if task.output == "map" else (count, task.out_channels)
    )
    prediction = torch.randn(shape, generator=random, dtype=torch.float64)
    if task.kind is None:
        return prediction, task.make_target(images).double()
    if task.kind == "mask":
        target = torch.randint(0, task.out_channels, (count, *SIZE), generator=random)
        target[torch.rand(count, *SIZE, generator=random) < 0.2] = 255
        return prediction, target.byte()
    if task.kind == "class":
        return prediction, torch.randint(0, task.out_channels, (count,), generator=random)
    corner = torch.rand(count, 2, generator=random, dtype=torch.float64) / 2
    return prediction, torch.cat([corner, corner + 0.4], 1)


def everyone(count: int = 6) -> Tensor:
    return torch.ones(count, dtype=torch.bool)


@every_task
def test_the_loss_of_a_batch_is_the_sum_of_its_parts(name: str, options: dict[str, Any]) -> None:
    task = make(name, options)
    prediction, target = draw(task)
    whole = task.loss(prediction, target, everyone())
    parts = [
        task.loss(prediction[part], target[part], everyone()[part])
        for part in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    torch.testing.assert_close(sum(p[0] for p in parts), whole[0], rtol=1e-9, atol=1e-12)
    assert sum(p[1] for p in parts) == whole[1] == task.count(target, everyone())


@every_task
def test_samples_without_a_label_change_nothing(name: str, options: dict[str, Any]) -> None:
    task = make(name, options)
    prediction, target = draw(task)
    present = torch.tensor([True, False, True, True, False, True])
    some = task.loss(prediction, target, present)
    kept = task.loss(prediction[present], target[present], everyone(4))
    torch.testing.assert_close(some, kept, rtol=1e-9, atol=1e-12)
    prediction[1] = 1e30
    torch.testing.assert_close(task.loss(prediction, target, present), kept, rtol=1e-9, atol=1e-12)


@every_task
def test_nothing_labelled_is_zero_with_a_zero_gradient(name: str, options: dict[str, Any]) -> None:
    task = make(name, options)
    prediction, target = draw(task)
    prediction.requires_grad_()
    total, count = task.loss(prediction, target, ~everyone())
    total.backward()
    assert total.item() == count.item() == 0
    assert prediction.grad is not None
    assert prediction.grad.abs().max() == 0


@every_task
def test_the_gradient_is_finite_and_points_downhill(name: str, options: dict[str, Any]) -> None:
    task = make(name, options)
    prediction, target = draw(task)
    prediction.requires_grad_()
    before, _ = task.loss(prediction, target, everyone())
    before.backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert prediction.grad.abs().max() > 0
    step = 1e-3 / prediction.grad.abs().max()
    after, _ = task.loss(prediction.detach() - step * prediction.grad, target, everyone())
    assert after < before


@every_task
def test_metrics_are_named_and_the_same_however_the_batch_is_cut(
    name: str, options: dict[str, Any]
) -> None:
    task = make(name, options)
    prediction, target = (x.float() if x.is_floating_point() else x for x in draw(task))
    present = torch.tensor([True, False, True, True, False, True])
    whole, cut = task.metric(), task.metric()
    task.update(whole, prediction, target, present)
    for part in (slice(0, 2), slice(2, 6)):
        task.update(cut, prediction[part], target[part], present[part])
    assert tuple(whole.compute()) == task.metric_names
    assert task.primary in task.metric_names
    for metric, value in whole.compute().items():
        assert value.isfinite(), metric
        assert value.item() == pytest.approx(cut.compute()[metric].item(), rel=1e-5), metric


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@every_task
def test_metrics_of_nothing_are_nan(name: str, options: dict[str, Any]) -> None:
    assert all(value.isnan() for value in make(name, options).metric().compute().values())


@every_task
def test_predictions_and_truth_are_drawn_at_any_size(name: str, options: dict[str, Any]) -> None:
    task = make(name, options)
    prediction, target = (x.float() if x.is_floating_point() else x for x in draw(task))
    for size in ((7, 9), (64, 64), (100, 301)):
        image = torch.full((3, *size), 90, dtype=torch.uint8)
        for decoded in (task.decode(prediction[0], image), task.decode_target(target[0], image)):
            drawn = task.draw(image, decoded)
            assert drawn.shape == image.shape
            assert drawn.dtype == torch.uint8


def test_cross_entropy_is_over_labelled_pixels() -> None:
    task = make("seg")
    prediction, target = draw(task)
    total, count = task.loss(prediction, target, everyone())
    expected = F.cross_entropy(prediction, target.long(), ignore_index=255)
    torch.testing.assert_close(total / count, expected)
    assert count == (target != 255).sum()


def test_focal_is_cross_entropy_that_trusts_what_is_easy() -> None:
    task = make("seg", {"loss": "focal"})
    prediction, target = draw(task)
    total, _ = task.loss(prediction, target, everyone())
    known = target != 255
    expected = torch.zeros((), dtype=torch.float64)
    for k in range(3):
        truth = (target[known] == k).double()
        logit = prediction[:, k][known]
        p = torch.where(truth > 0, logit.sigmoid(), 1 - logit.sigmoid())
        expected += ((1 - p) ** 2 * -p.log()).sum() / 3  # smp's: the mean over classes
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", ["dice", "jaccard"])
def test_overlap_losses_follow_their_formula(loss: str) -> None:
    task = make("seg", {"loss": loss})
    prediction, target = draw(task, 1)
    known = target[0] != 255
    p = prediction[0].softmax(0)[:, known]
    t = F.one_hot(target[0][known].long(), 3).T.double()
    both, all_ = (p * t).sum(1), (p + t).sum(1)
    score = 2 * both / all_ if loss == "dice" else both / (all_ - both)
    total, count = task.loss(prediction, target, everyone(1))
    torch.testing.assert_close(total / count, (1 - score).mean(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("target_name", ["seg", "pair"])
def test_segmentation_metrics_equal_torchmetrics(target_name: str) -> None:
    task = make("seg", {"target": target_name})
    prediction, target = draw(task)
    metric = task.metric()
    task.update(metric, prediction, target, everyone())
    guess, truth = prediction.argmax(1), target.long()
    given = {"num_classes": task.out_channels, "ignore_index": 255}
    ours = metric.compute()
    for name, average in (("miou", "macro"), ("weighted_iou", "weighted")):
        theirs = MulticlassJaccardIndex(**given, average=average)(guess, truth)
        assert ours[name].item() == pytest.approx(theirs.item(), rel=1e-5)
    f1 = MulticlassF1Score(**given, average=None)(guess, truth)
    expected = f1[1] if target_name == "pair" else f1.mean()
    assert ours["f1"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_class_that_never_occurs_does_not_count_in_the_mean() -> None:
    task = make("seg")
    metric = task.metric()
    scores = torch.zeros(1, 3, 1, 4)
    scores[0, 0, 0, :3] = scores[0, 1, 0, 3] = 1
    task.update(metric, scores, torch.tensor([[[0, 0, 1, 1]]]).byte(), everyone(1))
    assert metric.compute()["miou"].item() == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_accuracy_counts_labelled_samples() -> None:
    task = make("cls")
    metric = task.metric()
    scores = torch.eye(3)[[0, 1, 2, 0]]
    present = torch.tensor([True, True, True, False])
    task.update(metric, scores, torch.tensor([0, 1, 1, 1]), present)
    assert metric.compute()["accuracy"].item() == pytest.approx(2 / 3)


def test_a_class_is_decoded_by_name() -> None:
    decoded = make("cls").decode(torch.tensor([0.0, 2.0, 0.0]), torch.zeros(3, 4, 4))
    assert decoded["class"] == "dog"
    assert decoded["index"] == 1
    assert decoded["probability"] == pytest.approx(math.e**2 / (math.e**2 + 2))


def raw(boxes: Tensor) -> Tensor:
    """What the network must say for these corners."""
    return boxes - torch.tensor([0.25, 0.25, 0.75, 0.75], dtype=boxes.dtype)


def test_box_errors_are_in_pixels_and_overlap_is_iou() -> None:
    task = make("bbox")
    target = draw(task)[1].float()
    guess = target + 0.1
    metric = task.metric()
    task.update(metric, raw(guess), target, everyone())
    scale = torch.tensor([24.0, 16.0, 24.0, 16.0])
    expected = ((guess - target) * scale).square().mean()
    assert metric.compute()["l2"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert metric.compute()["iou"].item() == pytest.approx(
        box_iou(guess, target).diag().mean().item(), rel=1e-5
    )


def test_giou_puts_the_corners_in_order_first() -> None:
    task = make("bbox", {"loss": "giou"})
    target = draw(task)[1]
    guess = (target + 0.05)[:, [2, 3, 0, 1]]
    total, _ = task.loss(raw(guess), target, everyone())
    expected = generalized_box_iou_loss(target + 0.05, target, reduction="sum")
    torch.testing.assert_close(total, expected)


def test_a_box_is_decoded_in_the_pictures_pixels_in_order_and_inside() -> None:
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    decoded = make("bbox").decode(raw(torch.tensor([0.5, 0.8, -0.2, 0.4])), image)
    assert decoded["box"] == pytest.approx([0, 40, 100, 80], abs=1e-4)


def test_a_mask_is_decoded_at_the_pictures_size() -> None:
    scores = torch.zeros(3, 4, 4)
    scores[0, :, :2] = scores[2, :, 2:] = 5
    decoded = make("seg").decode(scores, torch.zeros(3, 40, 80, dtype=torch.uint8))
    assert decoded["mask"].shape == (40, 80)
    assert set(decoded["mask"][:, 50:].flatten().tolist()) == {2}
    assert set(decoded["mask"][:, :30].flatten().tolist()) == {0}


def test_noise_is_the_samples_own_and_has_its_mean_and_deviation() -> None:
    task = make("denoise", {"mean": 5.0, "std": 2.0})
    images = torch.full((4, 3, 64, 64), 0.5)
    seeds = torch.tensor([11, 12, 13, 14])
    seen = task.view(images, seeds)
    torch.testing.assert_close(task.view(images[2:], seeds[2:]), seen[2:], rtol=0, atol=0)
    assert not torch.equal(seen[0], seen[1])
    noise = (seen - images) * 255
    assert noise.mean().item() == pytest.approx(5, abs=0.05)
    assert noise.std().item() == pytest.approx(2, abs=0.05)
    assert torch.equal(task.view(images, None), images)
    assert task.view(torch.ones_like(images), seeds).max() <= 1


def test_psnr_and_ssim_of_known_errors() -> None:
    task = make("denoise")
    metric = task.metric()
    clean = torch.rand(2, 3, *SIZE) * 0.5
    task.update(metric, clean + 0.1, clean, everyone(2))
    assert metric.compute()["psnr"].item() == pytest.approx(20, rel=1e-4)
    perfect = task.metric()
    task.update(perfect, clean, clean, everyone(2))
    assert perfect.compute()["ssim"].item() == pytest.approx(1, rel=1e-5)


def test_edges_lie_where_a_square_ends() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:24, 8:24] = 1
    edges = make("edge").make_target(images)
    assert edges.shape == (1, 1, 32, 32)
    assert set(edges.unique().tolist()) == {0.0, 1.0}
    where = edges[0, 0].nonzero()
    border = torch.minimum((where - 8).abs(), (where - 23).abs()).min(1).values
    assert border.max() <= 1
    assert len(where) > 40
    assert make("edge").make_target(torch.full((1, 3, 32, 32), 0.3)).sum() == 0


def test_colours_of_the_truth_give_the_picture_back() -> None:
    task = make("colourise")
    images = torch.rand(2, 3, *SIZE)
    lab = task.make_target(images)
    torch.testing.assert_close(task.view(images, None), lab[:, :1])
    picture = (images[0] * 255).round().byte()
    exact = task.make_target(picture[None].float() / 255)[0]
    given = task.decode(exact[1:], picture)["image"].int()
    assert (given - picture.int()).abs().max() <= 1
    metric = task.metric()
    task.update(metric, lab[:, 1:], lab, everyone(2))
    assert metric.compute()["psnr"] > 60


def test_a_task_learns_the_label_called_like_it_or_the_one_that_is_asked_for() -> None:
    assert make("cls").target == "cls"
    assert make("cls", id="breed").target == "breed"
    assert make("cls", {"target": "breed"}, id="x").target == "breed"
    assert make("cls", {"target": "breed"}, id="x").out_channels == 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cls", {"target": "bred"}, "called 'bred', which is absent.*it has: cls, breed"),
        ("cls", {"target": "seg"}, "called 'seg', which is a mask"),
        ("denoise", {"std": -1.0}, "std must not be negative, but got -1.0"),
        ("edge", {"low": 0.5}, "thresholds must be 0 < low <= high, but got 0.5 and 0.2"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, options)
