"""A head, for example: ``mtlkit train --tasks seg,cls --tasks.seg.head my-plugin``."""

from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit import Features, FeatureSpec, Head


class MyPlugin(Head):
    """A hidden layer and a prediction at every position of the finest level, enlarged.

    Args:
        width: channels of the hidden layer.
    """

    output = "map"

    def __init__(self, spec: FeatureSpec, out_channels: int, /, *, width: int = 64) -> None:
        super().__init__(spec, out_channels)
        self.hidden = nn.Conv2d(spec.channels[0], width, kernel_size=3, padding=1)
        self.predict = nn.Conv2d(width, out_channels, kernel_size=1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Predict at ``size``."""
        small: Tensor = self.predict(F.relu(self.hidden(features.levels[0])))
        return F.interpolate(small, size, mode="bilinear")
