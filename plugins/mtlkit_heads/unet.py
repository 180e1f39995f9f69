"""U-Net decoder."""

from typing import Literal

from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder, last_channels


class UNet(Decoder):
    """Upsamples step by step, joining the backbone's level at every step.

    Args:
        channels: of each step, coarsest first; a shallower backbone takes the last ones.
        attention: ``scse`` weighs channels and positions after every step.

    Raises:
        ValueError: ``channels`` has too few numbers.

    Reference: Ronneberger et al., "U-Net", MICCAI 2015, arXiv 1505.04597.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        out_channels: int,
        /,
        *,
        channels: tuple[int, ...] = (256, 128, 64, 32, 16),
        attention: Literal["scse"] | None = None,
    ) -> None:
        super().__init__(spec, out_channels)
        steps = last_channels(channels, self.pyramid.depth)
        decoder = UnetDecoder(
            self.pyramid.channels, steps, n_blocks=len(steps), attention_type=attention
        )
        self.build(decoder, steps[-1], kernel_size=3)
