"""The default head of tasks that predict one vector per image."""

from torch import Tensor, nn

from mtlkit import Features, FeatureSpec, Head


class Linear(Head):
    """Averages the last level over the image, then one linear layer.

    Args:
        dropout: share of the averaged features left out in training, in [0, 1).
    """

    output = "vector"

    def __init__(self, spec: FeatureSpec, out_channels: int, /, *, dropout: float = 0.0) -> None:
        super().__init__(spec, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.predict = nn.Linear(spec.channels[-1], out_channels)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Predict; ``size`` does not matter."""
        prediction: Tensor = self.predict(self.dropout(features.levels[-1].mean((2, 3))))
        return prediction
