"""Cross-stitch networks.

Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016, arXiv 1604.03539. Here
the towers are small and start from random weights, where the authors train AlexNets first.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtlkit import Backbone, Features, FeatureSpec


class CrossStitch(Backbone):
    """A tower per task, whose levels are mixed by learned weights, one matrix per level.

    Args:
        width: channels of the first level; each further level has twice as many.
        own: weight of a task's own tower at the start, in [0, 1]; the others share the rest.

    Raises:
        ValueError: ``own`` is outside [0, 1].

    Reference: Misra et al., CVPR 2016, arXiv 1604.03539, eq. 1.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        dense_tasks: Sequence[str] = (),
        in_channels: int = 3,
        /,
        *,
        width: int = 16,
        own: float = 0.9,
    ) -> None:
        super().__init__(tasks, dense_tasks, in_channels)
        if not 0 <= own <= 1:
            raise ValueError(f"own must be in [0, 1], but got {own}")
        channels = [width * 2**level for level in range(5)]
        self.spec = FeatureSpec(channels=tuple(channels), strides=(2, 4, 8, 16, 32))
        self.towers = nn.ModuleList(_tower([in_channels, *channels]) for _ in self.tasks)
        self.stitches = nn.ParameterList(_stitch(len(self.tasks), own) for _ in channels)

    def encode(self, images: Tensor) -> dict[str, Features]:
        """All towers are shared: each reaches every task through the stitches."""
        self.check_size(images.shape[-2], images.shape[-1])
        maps = [images] * len(self.tasks)
        levels = []
        for level, stitch in enumerate(self.stitches):
            own = torch.stack([t[level](x) for t, x in zip(self.towers, maps, strict=True)])
            mixed = torch.einsum("ts,s...->t...", stitch, own)  # [T, B, C, H, W]
            maps = list(mixed)
            levels.append(maps)
        per_task = zip(*levels, strict=True)
        return {task: Features(tuple(own)) for task, own in zip(self.tasks, per_task, strict=True)}

    def route(self, shared: dict[str, Features], tasks: Sequence[str], /) -> dict[str, Features]:
        return {task: shared[task] for task in tasks}


def _tower(channels: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        )
        for before, after in pairwise(channels)
    )


def _stitch(num_tasks: int, own: float) -> nn.Parameter:
    if num_tasks == 1:
        return nn.Parameter(torch.ones(1, 1))
    other = (1 - own) / (num_tasks - 1)
    return nn.Parameter(torch.full((num_tasks, num_tasks), other).fill_diagonal_(own))
