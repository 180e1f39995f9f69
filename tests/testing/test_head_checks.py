"""Every check of heads finds its fault."""

import pytest
import torch
from faults import fault, own_checks
from torch import nn
from torch.nn import functional as F

from mtlkit import Head
from mtlkit.testing import check_head


class Right(Head):
    """One linear layer over the average of the last level."""

    output = "vector"

    def __init__(self, spec, out_channels, /):
        super().__init__(spec, out_channels)
        self.predict = nn.Linear(spec.channels[-1], out_channels)

    def forward(self, features, size):
        return self.predict(features.levels[-1].mean((2, 3)))


class Map(Head):
    """One convolution over the first level, or the decoded map."""

    output = "map"
    reads_dense = True

    def __init__(self, spec, out_channels, /):
        super().__init__(spec, out_channels)
        self.predict = nn.Conv2d(spec.dense or spec.channels[0], out_channels, 1)

    def forward(self, features, size):
        seen = features.levels[0] if features.dense is None else features.dense
        return F.interpolate(self.predict(seen), size)


class OtherOutput(Right):
    output = "picture"


class NotResized(Map):
    def forward(self, features, size):
        return self.predict(features.levels[0])


class FiveLevels(Right):
    def forward(self, features, size):
        return self.predict(features.levels[4].mean((2, 3)))


class ReadsDense(Right):
    def forward(self, features, size):
        return super().forward(features, size) + (features.dense.mean() if self.spec.dense else 0)


class Squashed(Right):
    def forward(self, features, size):
        return super().forward(features, size).sigmoid()


class Detached(Right):
    def forward(self, features, size):
        return self.predict(features.levels[-1].detach().mean((2, 3)))


class InPlace(Right):
    def forward(self, features, size):
        return self.predict(features.levels[-1].relu_().mean((2, 3)))


class Centred(Right):
    def forward(self, features, size):
        prediction = super().forward(features, size)
        return prediction - prediction.mean(0)


class Float32Only(Right):
    def forward(self, features, size):
        prediction = super().forward(features, size)
        index = torch.zeros(prediction.shape, dtype=torch.int64)
        return torch.zeros(prediction.shape).scatter(1, index, prediction)


class Forgetful(Right):
    steps = 1

    def forward(self, features, size):
        self.steps += self.training
        return super().forward(features, size) * self.steps


WRONG = {
    "it declares its output": (OtherOutput, "output is 'picture'"),
    "predictions have the declared shape in training and evaluation": (
        NotResized,
        "for 1 images of 64 x 96 the prediction is (1, 1, 32, 48), not (1, 1, 64, 96), as "
        "output = 'map' promises",
    ),
    "it fits every backbone or says so when it is built": (
        FiveLevels,
        "built for a pyramid without stride 2, forward() raises IndexError",
    ),
    "it reads a decoded map only if it says so": (ReadsDense, "'NoneType' object has no attribute"),
    "predictions are raw": (Squashed, "all of one sign"),
    "gradients reach the features": (Detached, "no level gets a gradient"),
    "features are left as they are": (InPlace, "level 4 of the features was changed in place"),
    "evaluation looks at each image alone": (Centred, "the first of three images, alone, differs"),
    "it trains in bfloat16": (Float32Only, "scatter(): Expected self.dtype to be equal to src"),
    "its state survives saving": (Forgetful, "predictions after loading what was saved differ"),
}


@pytest.mark.parametrize("head", [Right, Map])
def test_a_right_head_passes_every_check(head: type) -> None:
    check_head(head)


def test_every_check_has_a_wrong_head() -> None:
    assert set(WRONG) == own_checks("head")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_head_is_found(name: str) -> None:
    wrong, text = WRONG[name]
    assert text in fault("head", name, wrong)


class Choosy(FiveLevels):
    """It refuses backbones with fewer levels."""

    def __init__(self, spec, out_channels, /):
        super().__init__(spec, out_channels)
        if len(spec.channels) < 5:
            raise ValueError("needs five levels")


def test_a_head_may_refuse_a_backbone_when_it_is_built() -> None:
    check_head(Choosy)
