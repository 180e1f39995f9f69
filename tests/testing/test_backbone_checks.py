"""Every check of backbones finds its fault."""

import pytest
import torch
from faults import fault, own_checks
from torch import nn
from torch.nn import functional as F

from mtlkit import Backbone, Features, FeatureSpec
from mtlkit.testing import check_backbone


class Right(Backbone):
    """Two convolutions for all tasks, and a mask for each.

    Args:
        width: channels of the first level.
    """

    decodes = True
    multiple = 4

    def __init__(self, tasks, dense_tasks=(), in_channels=3, /, *, width: int = 4):
        super().__init__(tasks, dense_tasks, in_channels)
        self.first = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.second = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.masks = nn.ModuleDict({task: nn.Conv2d(2 * width, 2 * width, 1) for task in tasks})
        self.up = nn.Conv2d(width, width, 1) if dense_tasks else None
        self.spec = FeatureSpec((width, 2 * width), (2, 4), width if dense_tasks else None)

    def encode(self, images):
        first = self.first(images)
        return first, self.second(first)

    def route(self, shared, tasks, /):
        return {task: self.features(task, *shared) for task in tasks}

    def features(self, task, first, second):
        dense = None
        if self.up is not None and task in self.dense_tasks:
            dense = F.interpolate(self.up(first), scale_factor=2.0)
        return Features((first, second * self.masks[task](second).sigmoid()), dense)

    def own_modules(self, task, /):
        yield self.masks[task]


class StrideThatDoesNotDivide(Right):
    multiple = 2


class OtherStride(Right):
    multiple = 8

    def __init__(self, tasks, dense_tasks=(), in_channels=3, /):
        super().__init__(tasks, dense_tasks, in_channels)
        self.spec = FeatureSpec((4, 8), (2, 8), self.spec.dense)


class ThreeTasksOnly(Right):
    def features(self, task, first, second):
        self.masks["two"](second)
        return super().features(task, first, second)


class ThreeChannelsOnly(Right):
    def __init__(self, tasks, dense_tasks=(), in_channels=3, /):
        super().__init__(tasks, dense_tasks, 3)
        self.in_channels = in_channels


class AnySize(Right):
    def check_size(self, height, width):
        pass


class OwnedTwice(Right):
    def own_modules(self, task, /):
        yield self.second


class OwnedByAnother(Right):
    def own_modules(self, task, /):
        yield self.masks[{"one": "two", "two": "three", "three": "one"}[task]]


class Divided(Right):
    def route(self, shared, tasks, /):
        return super().route((shared[0], shared[1] / len(tasks)), tasks)


class Centred(Right):
    def encode(self, images):
        return super().encode(images - images.mean(0))


class InPlace(Right):
    def encode(self, images):
        return super().encode(images.mul_(2))


class ContiguousOnly(Right):
    def encode(self, images):
        _, c, h, w = images.shape
        return super().encode(images.as_strided(images.shape, (c * h * w, h * w, w, 1)))


class Float32Only(Right):
    def encode(self, images):
        first, second = super().encode(images)
        index = torch.zeros(second.shape, dtype=torch.int64)
        return first, torch.zeros(second.shape).scatter(0, index, second)


class CountsTwice(Right):
    recomputes = True

    def encode(self, images):
        first = self.recompute(lambda x: self.first(x), images)  # which hides the batch norm
        return first, self.second(first)


class Forgetful(Right):
    steps = 1

    def encode(self, images):
        self.steps += self.training
        return super().encode(images * self.steps)


class Dropping(Right):
    def encode(self, images):
        return super().encode(F.dropout(images))


class Branching(Right):
    def encode(self, images):
        return super().encode(images if images.sum() > 0 else -images)


WRONG = {
    "it declares what it gives": (StrideThatDoesNotDivide, "multiple is 2, which the strides [4]"),
    "declared channels and strides are true for three image sizes": (
        OtherStride,
        "for 1 images of 32 x 64 the spec promises task 'one' levels [(1, 4, 16, 32), (1, 8, 4, 8)]"
        ", but it got [(1, 4, 16, 32), (1, 8, 8, 16)]",
    ),
    "it works for one task and for three in training and evaluation": (
        ThreeTasksOnly,
        "KeyError: 'two' (test_backbone_checks.py, line ",
    ),
    "it takes as many channels as it is told": (ThreeChannelsOnly, "to have 3 channels, but got 1"),
    "image sizes that do not fit are refused": (AnySize, "check_size(33, 64) accepts what is no"),
    "shared and own parameters are disjoint and complete": (
        OwnedTwice,
        "second.weight is of task 'one' and of task 'two'",
    ),
    "what a task owns is used by that task alone": (
        OwnedByAnother,
        "masks.two.weight, task 'one''s own, gets no gradient from it",
    ),
    "a task sees the same whoever else is asked for": (Divided, "features of task 'one' asked for"),
    "evaluation looks at each image alone": (Centred, "the first of three images, fed alone,"),
    "images are left as they are": (InPlace, "the batch of images was changed in place"),
    "the memory order of images does not matter": (ContiguousOnly, "channels-last features differ"),
    "it trains in bfloat16": (Float32Only, "scatter(): Expected self.dtype to be equal to src"),
    "activations that are computed again change nothing": (
        CountsTwice,
        "with activations computed again, the buffer first.1.running_mean is another",
    ),
    "its state survives saving": (Forgetful, "features after loading what was saved differ"),
    "evaluation draws no random numbers": (Dropping, "used torch's global random numbers"),
    "it can be exported": (Branching, "data-dependent"),
}


def test_a_right_backbone_passes_every_check() -> None:
    check_backbone(Right)
    check_backbone(Right, width=6)


def test_every_check_has_a_wrong_backbone() -> None:
    assert set(WRONG) == own_checks("backbone")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_backbone_is_found(name: str) -> None:
    wrong, text = WRONG[name]
    assert text in fault("backbone", name, wrong)


class Fixed(Right):
    """It takes one size only."""

    def check_size(self, height, width):
        if (height, width) != (224, 224):
            raise ValueError("224 x 224 only")


class Nothing(Right):
    """It takes no size at all."""

    def check_size(self, height, width):
        raise ValueError("never")


def test_a_backbone_of_one_size_is_checked_at_that_size() -> None:
    check_backbone(Fixed)
    text = fault("backbone", "its state survives saving", Nothing)
    assert text.startswith("check_size() refuses [(32, 64), (64, 32), (96, 64)] and squares of")
