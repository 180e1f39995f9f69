"""A backbone, for example: ``mtlkit train --backbone my-plugin``."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from mtlkit import Backbone, Features, FeatureSpec


class MyPlugin(Backbone):
    """Five convolutions, each of which halves the resolution; the same features for all tasks.

    Args:
        width: channels of the first level; each further level has twice as many.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        dense_tasks: Sequence[str] = (),
        in_channels: int = 3,
        /,
        *,
        width: int = 16,
    ) -> None:
        super().__init__(tasks, dense_tasks, in_channels)
        channels = [width * 2**level for level in range(5)]
        self.spec = FeatureSpec(channels=tuple(channels), strides=(2, 4, 8, 16, 32))
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for before, after in pairwise([in_channels, *channels])
        )

    def encode(self, images: Tensor) -> Features:
        """The finest level first."""
        self.check_size(images.shape[-2], images.shape[-1])
        found = []
        for level in self.levels:
            images = level(images)
            found.append(images)
        return Features(tuple(found))
