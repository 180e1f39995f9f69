"""Evaluation: never waits for the device, and compares at the size that is asked for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from together import run_together
from torch import Tensor, nn
from torchvision import tv_tensors

from mtlkit import Backbone, DatasetSpec, Features, FeatureSpec, Head, Model, TargetSpec
from mtlkit.build import build_model, create
from mtlkit.evaluate import evaluate, score
from mtlkit.full_size import FullSize
from mtlkit.loader import Batch, Batches, Prepared
from mtlkit.settings import Choice, TaskChoice

ALL = ("seg", "cls", "bbox", "denoise", "edge", "colourise")


def loaded(prepared: Prepared | FullSize, size: int, rank: int = 0, world: int = 1) -> list[Batch]:
    count = len(prepared.samples if isinstance(prepared, Prepared) else prepared.once)
    batches = Batches(count, size, train=False, rank=rank, world=world)
    return [prepared.collate([prepared[key] for key in keys]) for keys in batches]


def shapes(ids: Sequence[str], **options: Any) -> tuple[Model, Prepared]:
    """A small network with random weights, and five generated pictures of its size."""
    data = create("dataset", Choice("shapes", {"train": 2, "val": 5, "test": 2, "size": 32}))
    torch.manual_seed(0)
    tasks = {id: TaskChoice(id, options.get(id, {})) for id in ids}
    segnet = Choice("segnet", {"width": 4})
    model = build_model(tasks, segnet, data.spec, image_size=(32, 32), views="own")
    targets = {id: data.spec.targets[id] for id in ids if id in data.spec.targets}
    return model, Prepared(data.split("val"), targets, (32, 32))


class Over(Exception):
    """All batches are done."""


def then_over(batches: Iterable[Batch]) -> Iterator[Batch]:
    yield from batches
    raise Over


def evaluate_without_values(model: Model, batches: Iterable[Batch]) -> None:
    """On a device that has no values to read: whoever waits for one fails."""
    device = torch.device("meta")
    nowhere: Any = SimpleNamespace(device=device, autocast=nullcontext, num_processes=1)
    with pytest.raises(Over):
        evaluate(model.to(device), then_over(batches), nowhere)


@pytest.mark.parametrize("full_size", [False, True])
def test_nothing_waits_for_the_device_before_the_last_batch_is_done(full_size: bool) -> None:
    model, prepared = shapes(ALL)
    evaluate_without_values(model, loaded(FullSize(prepared) if full_size else prepared, 2))


LOSSES = [("seg", loss) for loss in ("dice", "focal", "jaccard", "tversky")]
LOSSES += [("bbox", loss) for loss in ("mse", "l1", "giou", "diou")] + [
    ("denoise", "l1"),
    ("edge", "bce"),
]


@pytest.mark.parametrize(("id", "loss"), LOSSES)
def test_no_loss_waits_for_the_device(id: str, loss: str) -> None:
    model, prepared = shapes([id], **{id: {"loss": loss}})
    evaluate_without_values(model, loaded(prepared, 2))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: bool(x.any()), lambda x: float(x.sum()), lambda x: x.max().item(),
        Tensor.cpu, Tensor.tolist, Tensor.nonzero, lambda x: x[x > 0],
    ],
    ids=["bool", "float", "item", "cpu", "tolist", "nonzero", "mask"],
)  # fmt: skip
def test_a_task_that_waits_is_found(wait: Callable[[Tensor], object]) -> None:
    model, prepared = shapes(["cls"])
    task = model.tasks["cls"]
    update = task.update

    def waiting(metric: Any, prediction: Tensor, *rest: Tensor) -> None:
        wait(prediction)
        update(metric, prediction, *rest)

    task.update = waiting  # type: ignore[method-assign]
    with pytest.raises((RuntimeError, NotImplementedError)):
        evaluate_without_values(model, loaded(prepared, 2))


def test_pictures_of_the_networks_size_give_the_usual_results_at_full_size() -> None:
    model, prepared = shapes(ALL)
    accelerator = Accelerator(cpu=True)
    usual = evaluate(model, loaded(prepared, 2), accelerator)
    full = evaluate(model, loaded(FullSize(prepared), 2), accelerator)
    assert full == pytest.approx(usual, rel=1e-5)


class Nothing(Backbone):
    """Its features are the images."""

    multiple = 1

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks, (), 3)
        self.spec = FeatureSpec((3,), (1,))

    def encode(self, images: Tensor) -> Tensor:
        return images

    def route(self, shared: Tensor, tasks: Sequence[str], /) -> dict[str, Features]:
        return {task: Features((shared,)) for task in tasks}


class Always(Head):
    """The same answer for every picture."""

    def __init__(self, answer: Tensor) -> None:
        nn.Module.__init__(self)
        self.answer = nn.Parameter(answer)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        batch = len(features.levels[0])
        return self.answer.expand(batch, *self.answer.shape)


SPEC = DatasetSpec(
    {
        "seg": TargetSpec("mask", ("left", "right")),
        "cls": TargetSpec("class", ("one", "two")),
        "bbox": TargetSpec("box"),
    }
)


def opinionated() -> Model:
    """Of 4 x 4 pixels; it sees ``left`` left, ``right`` right, class 1 and a box in the middle."""
    margin = torch.tensor([-1.0, -1, 1, 1]).expand(1, 4, 4)
    answers = {
        "seg": torch.cat((torch.zeros(1, 4, 4), margin)),
        "cls": torch.tensor([0.0, 1]),
        "bbox": torch.zeros(4),
    }
    tasks = [create("task", Choice(id), id, SPEC, (4, 4)) for id in answers]
    heads = {id: Always(answer) for id, answer in answers.items()}
    return Model(tasks, Nothing(tuple(answers)), heads, image_size=(4, 4))


def picture(id: str, mask: Tensor, label: int, box: Sequence[float]) -> dict[str, Any]:
    size = (mask.shape[0], mask.shape[1])
    return {
        "id": id,
        "image": tv_tensors.Image(torch.zeros(3, *size, dtype=torch.uint8)),
        "seg": tv_tensors.Mask(mask.byte()),
        "cls": torch.tensor(label),
        "bbox": tv_tensors.BoundingBoxes([[float(x) for x in box]], format="XYXY",
                                         canvas_size=size),
    }  # fmt: skip


def two_pictures() -> FullSize:
    """A square one, whose first row is not labelled, and a wide one."""
    square, wide = torch.ones(8, 8), torch.ones(2, 6)
    square[:, :3], square[0], wide[:, 0] = 0, 255, 0
    pictures: Any = [picture("a", square, 1, (2, 2, 6, 4)), picture("b", wide, 0, (0, 0, 3, 2))]
    return FullSize(Prepared(pictures, SPEC.targets, (4, 4)))


def check(results: dict[str, float]) -> None:
    # pixels of truth / prediction: left/left 7 * 3 + 2, right/left 7 + 2 * 2, right/right 7 * 4 + 6
    assert results["seg/miou"] == pytest.approx((23 / 34 + 34 / 45) / 2)
    assert results["seg/f1"] == pytest.approx(2 * 34 / (45 + 34))
    assert results["cls/accuracy"] == 0.5
    # the box is (2, 2, 6, 6) in the square picture and (1.5, 0.5, 4.5, 1.5) in the wide one
    assert results["bbox/l2"] == pytest.approx((2**2 / 4 + (1.5**2 + 0.5**2) / 2) / 2)
    assert results["bbox/iou"] == pytest.approx((8 / 16 + 1.5 / 7.5) / 2)


@pytest.mark.parametrize("size", [1, 2])
def test_pictures_of_two_sizes_are_compared_in_their_own_pixels(size: int) -> None:
    results = evaluate(opinionated(), loaded(two_pictures(), size), Accelerator(cpu=True))
    check(results)
    # between the two middle columns of the network's four, the margin goes from -1 to 1
    rows = {8: (7, [-1, -1, -1, -0.5, 0.5, 1, 1, 1]), 6: (2, [-1, -1, -2 / 3, 2 / 3, 1, 1])}
    total = 0.0
    for width, (count, margins) in rows.items():
        signs = torch.ones(width)
        signs[: 3 if width == 8 else 1] = -1
        total += count * float(nn.functional.softplus(-signs * torch.tensor(margins)).sum())
    assert results["seg/loss"] == pytest.approx(total / (7 * 8 + 2 * 6))


def work(accelerator: Accelerator) -> dict[str, float]:
    rank, world = accelerator.process_index, accelerator.num_processes
    three = two_pictures()
    three.once.samples = [three.once.samples[i] for i in (0, 1, 0)]  # type: ignore[assignment]
    return evaluate(opinionated(), loaded(three, 1, rank, world), accelerator)


def test_full_size_results_are_those_of_one_process_on_two(tmp_path: Any) -> None:
    one = work(Accelerator(cpu=True))
    assert one["bbox/l2"] == pytest.approx((1 + 1.25 + 1) / 3)
    for found in run_together(work, 2, tmp_path):
        assert found == pytest.approx(one, rel=1e-6)


def test_a_monitored_metric_is_better_in_the_direction_its_task_says() -> None:
    model, _ = shapes(("seg", "bbox"))
    tasks = list(model.tasks.values())
    found = {"seg/miou": 0.5, "seg/f1": 0.5, "bbox/iou": 0.7, "bbox/l2": 30.0, "bbox/loss": 2.0}
    scores = {name: score(found, tasks, name) for name in found}
    assert scores == {**found, "bbox/l2": -30.0, "bbox/loss": -2.0}
