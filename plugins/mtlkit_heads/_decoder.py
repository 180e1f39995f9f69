"""What the heads have in common that decode with segmentation_models_pytorch."""

from collections.abc import Sequence
from typing import Any, ClassVar

from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from torch import Tensor, nn

from mtlkit import Features, FeatureSpec, Head
from mtlkit_heads._pyramid import Pyramid, resize


class Decoder(Head):
    """A head that decodes the levels; abstract: a subclass builds ``decoder`` and ``predict``."""

    output = "map"
    least_depth: ClassVar[int] = 3
    """The decoder needs levels down to the stride ``2**least_depth``."""

    def __init__(self, spec: FeatureSpec, out_channels: int, /) -> None:
        super().__init__(spec, out_channels)
        self.pyramid = Pyramid(spec, self.least_depth)

    def build(self, decoder: Any, channels: int, *, kernel_size: int) -> None:
        """Set the decoder and the convolution from its ``channels`` to the prediction."""
        self.decoder = decoder
        self.predict = nn.Conv2d(channels, self.out_channels, kernel_size, padding="same")
        initialize_decoder(self.decoder)
        initialize_head(self.predict)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Predict at the decoder's resolution and upsample to ``size``."""
        pyramid = self.pyramid(features.levels, size)
        return resize(self.predict(self.decode(pyramid)), size)

    def decode(self, pyramid: list[Tensor]) -> Tensor:
        """What the decoder makes of the pyramid."""
        decoded: Tensor = self.decoder(pyramid)
        return decoded


def last_channels(channels: Sequence[int], depth: int) -> list[int]:
    """The last ``depth`` of ``channels``, one per step of a decoder.

    Raises:
        ValueError: there are fewer.
    """
    if len(channels) < depth:
        raise ValueError(
            f"channels needs at least {depth} numbers for the {depth} steps of this decoder, "
            f"but got {len(channels)}: {', '.join(map(str, channels))}"
        )
    return list(channels[len(channels) - depth :])


def pooled_norm(channels: int) -> nn.Module:
    """Normalisation for a branch that was pooled to 1 x 1, of which one sample has no variance."""
    return nn.GroupNorm(1, channels)
