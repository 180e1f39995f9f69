"""Every check of tasks finds its fault."""

import pytest
import torch
from faults import fault, own_checks
from torchmetrics import Metric

from mtlkit import Table, Task
from mtlkit.testing import check_task


class Errors(Metric):
    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("number", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, prediction, target):
        self.total = self.total + (prediction - target).abs().sum()
        self.number = self.number + target.numel()

    def compute(self):
        return {"error": self.total / self.number}


class Right(Task):
    """Numbers of the image, by squared error.

    Args:
        target: the label to learn.
    """

    kind = "vector"
    label = "numbers"
    output = "vector"
    default_head = "linear"
    metric_names = ("error",)
    primary = "error"
    higher_is_better = False

    def __init__(self, id, spec, image_size, /, *, target: str | None = None):
        super().__init__(id, spec, image_size, target=target)
        self.out_channels = self.target_spec(spec).channels

    def loss(self, prediction, target, present):
        error = (torch.where(present[:, None], prediction, 0) - target).square()
        return torch.where(present[:, None], error, 0).sum(), self.count(target, present)

    def count(self, target, present):
        return present.sum().float() * target.shape[1]

    def metric(self):
        return Errors()

    def decode(self, prediction, image):
        return {"numbers": prediction.tolist()}

    def decode_target(self, target, image):
        return {"numbers": target.tolist()}

    def draw(self, image, decoded):
        return image


class Inverted(Right):
    """A self-supervised task: the negative, when the network sees the image darker."""

    kind = None
    output = "map"
    default_head = "dense"
    view_channels = 3
    out_channels = 3

    def __init__(self, id, spec, image_size, /):
        Task.__init__(self, id, spec, image_size)

    def view(self, images, seeds):
        return images * 0.5

    def make_target(self, images):
        return 1 - images

    def loss(self, prediction, target, present):
        error = (prediction - target).abs().flatten(1).sum(1)
        return torch.where(present, error, 0).sum(), self.count(target, present)

    def count(self, target, present):
        return present.sum().float() * target[0].numel()

    def decode(self, prediction, image):
        return {"negative": 255 - image}

    decode_target = decode


class OtherPrimary(Right):
    primary = "accuracy"


class OtherHead(Right):
    default_head = "dense"


class AnyLabel(Right):
    def __init__(self, id, spec, image_size, /, *, target: str | None = None):
        self.id, self.target, self.out_channels = id, "numbers", 4


class Counting(Right):
    built = 0

    def __init__(self, id, spec, image_size, /, *, target: str | None = None):
        super().__init__(id, spec, image_size, target=target)
        Counting.built += 1
        self.out_channels = Counting.built


class Brightened(Right):
    def view(self, images, seeds):
        return images + 0.1


class MeanLoss(Right):
    def loss(self, prediction, target, present):
        total, count = super().loss(prediction, target, present)
        return total / count, count


class NotANumber(Right):
    def loss(self, prediction, target, present):
        total, count = super().loss(prediction, target, present)
        return total / count * count, count


class AllLabelled(Right):
    def loss(self, prediction, target, present):
        return (prediction - target).square().sum(), self.count(target, present)


class OtherDirection(Right):
    higher_is_better = True


class OtherNames(Right):
    metric_names = ("mistake", "error")


class RawAnswer(Right):
    def decode(self, prediction, image):
        return {"numbers": prediction}


class NamelessTable(Right):
    def tables(self, metric):
        return {"counts": Table(("a", "b"), ("c",), [[1.0]])}


WRONG = {
    "it declares what it learns": (OtherPrimary, "primary is 'accuracy', not one of metric_names"),
    "its default head fits": (
        OtherHead,
        "it predicts a vector, but its default head 'dense' a map",
    ),
    "a dataset without the label is refused": (
        AnyLabel,
        "it accepts a dataset without a label of kind 'vector'",
    ),
    "it is the same when rebuilt from a saved model": (
        Counting,
        "out_channels is 2 after loading, and was 1",
    ),
    "views and made targets depend on each sample alone": (
        Brightened,
        "view() alters the image, but view_channels is None",
    ),
    "losses are sums and add up": (MeanLoss, "the sum of a batch is "),
    "nothing labelled is a loss of zero with a zero gradient": (
        NotANumber,
        "loss() returns nan over 0 elements",
    ),
    "samples without a label count for nothing": (AllLabelled, "the sum with them is "),
    "a lower loss is a better primary metric": (OtherDirection, "and higher_is_better is True"),
    "metrics have their names and add up over batches": (
        OtherNames,
        "compute() has ['error'], and metric_names ['error', 'mistake']",
    ),
    "tables have a name for every row and column": (
        NamelessTable,
        "'counts' has 2 x 1 names, not so values",
    ),
    "predictions are decoded and drawn at the size of the picture": (
        RawAnswer,
        "'numbers' is torch.float32 (4,), for a picture of (3, 40, 50)",
    ),
}


@pytest.mark.parametrize("task", [Right, Inverted])
def test_a_right_task_passes_every_check(task: type) -> None:
    check_task(task)


def test_a_task_is_checked_with_the_label_that_its_options_name() -> None:
    check_task(Right, target="amounts")


def test_every_check_has_a_wrong_task() -> None:
    assert set(WRONG) == own_checks("task")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_task_is_found(name: str) -> None:
    wrong, text = WRONG[name]
    Counting.built = 0
    assert text in fault("task", name, wrong)


class TurnedLoss(Right):
    def loss(self, prediction, target, present):
        total, count = super().loss(prediction, target, present)
        return -total, count


class OutOfRange(Inverted):
    def view(self, images, seeds):
        return images * 2


class NeighbourTarget(Inverted):
    def make_target(self, images):
        return images - images.mean(0)


class UnlabelledMetric(Right):
    def update(self, metric, prediction, target, present):
        metric.update(prediction, target)


VIEWS = "views and made targets depend on each sample alone"


@pytest.mark.parametrize(
    ("wrong", "name", "text"),
    [
        (TurnedLoss, "a lower loss is a better primary metric", "while the loss fell from"),
        (OutOfRange, VIEWS, "view() leaves [0, 1]"),
        (NeighbourTarget, VIEWS, "make_target() of a sample depends on the rest of the batch"),
        (
            UnlabelledMetric,
            "metrics have their names and add up over batches",
            "of the labelled samples at once, and",
        ),
    ],
)
def test_another_wrong_task_is_found(wrong: type, name: str, text: str) -> None:
    assert text in fault("task", name, wrong)
