"""Head: features of one task to that task's raw prediction."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from mtlkit.backbone import Features, FeatureSpec

Output = Literal["map", "vector"]


class Head(nn.Module, ABC):
    """Turns the features of one task into its raw prediction, without a final activation.

    Args:
        spec: what the features look like.
        out_channels: channels of the prediction.
    """

    output: ClassVar[Output]
    """``map`` predicts ``[B, out_channels, H, W]``, ``vector`` predicts ``[B, out_channels]``."""
    reads_dense: ClassVar[bool] = False
    """Whether it reads ``Features.dense`` where the backbone has one."""

    def __init__(self, spec: FeatureSpec, out_channels: int, /) -> None:
        super().__init__()
        self.spec = spec
        self.out_channels = out_channels

    @abstractmethod
    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Predict.

        Args:
            features: of this head's task.
            size: height and width of the images; a map is returned at this size.
        """
