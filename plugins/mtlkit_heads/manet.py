"""MA-Net decoder."""

from segmentation_models_pytorch.decoders.manet.decoder import MAnetDecoder

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder, last_channels


class MANet(Decoder):
    """A U-Net with attention between positions at the bottom and between channels at every step.

    Args:
        channels: of each step, coarsest first; a shallower backbone takes the last ones.
        attention_channels: of the attention between positions.

    Raises:
        ValueError: ``channels`` has too few numbers.

    Reference: Fan et al., "MA-Net", IEEE Access 2020, doi 10.1109/ACCESS.2020.3025372.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        out_channels: int,
        /,
        *,
        channels: tuple[int, ...] = (256, 128, 64, 32, 16),
        attention_channels: int = 64,
    ) -> None:
        super().__init__(spec, out_channels)
        steps = last_channels(channels, self.pyramid.depth)
        decoder = MAnetDecoder(
            self.pyramid.channels, steps, n_blocks=len(steps), pab_channels=attention_channels
        )
        self.build(decoder, steps[-1], kernel_size=3)
