"""A head for vectors that say where something is."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit import Features, FeatureSpec, Head


class Spatial(Head):
    """Keeps a coarse grid of positions, which averaging would lose, then two linear layers.

    The last ``num_levels`` levels are each reduced by a 1 x 1 convolution and averaged onto the
    grid, so the images may have any size.

    Args:
        num_levels: how many of the coarsest levels it reads.
        channels: of each level on the grid.
        grid: cells along each side.
        hidden: width of the layer between.
        dropout: share of that layer left out in training, in [0, 1).

    Raises:
        ValueError: ``num_levels`` or ``grid`` is less than 1.
    """

    output = "vector"

    def __init__(
        self,
        spec: FeatureSpec,
        out_channels: int,
        /,
        *,
        num_levels: int = 2,
        channels: int = 64,
        grid: int = 4,
        hidden: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, out_channels)
        if num_levels < 1 or grid < 1:
            raise ValueError(
                f"num_levels and grid must be at least 1, but got {num_levels} and {grid}"
            )
        self.grid = grid
        self.reduce = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in spec.channels[-num_levels:])
        self.hidden = nn.Linear(len(self.reduce) * channels * grid * grid, hidden)
        self.dropout = nn.Dropout(dropout)
        self.predict = nn.Linear(hidden, out_channels)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Predict; ``size`` does not matter."""
        levels = features.levels[-len(self.reduce) :]
        cells = [
            F.adaptive_avg_pool2d(F.gelu(reduce(level)), self.grid).flatten(1)
            for reduce, level in zip(self.reduce, levels, strict=True)
        ]
        hidden = F.gelu(self.hidden(torch.cat(cells, dim=1)))
        prediction: Tensor = self.predict(self.dropout(hidden))
        return prediction
