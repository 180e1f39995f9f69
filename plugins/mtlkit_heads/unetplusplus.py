"""UNet++ decoder."""

from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder, last_channels


class UNetPlusPlus(Decoder):
    """A U-Net whose skip connections are themselves nested, dense U-Nets.

    Args:
        channels: of each step, coarsest first; a shallower backbone takes the last ones.

    Raises:
        ValueError: ``channels`` has too few numbers.

    Reference: Zhou et al., "UNet++", 2018, arXiv 1807.10165.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        out_channels: int,
        /,
        *,
        channels: tuple[int, ...] = (256, 128, 64, 32, 16),
    ) -> None:
        super().__init__(spec, out_channels)
        steps = last_channels(channels, self.pyramid.depth)
        decoder = UnetPlusPlusDecoder(self.pyramid.channels, steps, n_blocks=len(steps))
        self.build(decoder, steps[-1], kernel_size=3)
