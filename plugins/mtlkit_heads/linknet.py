"""LinkNet decoder."""

from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder


class LinkNet(Decoder):
    """Upsamples step by step and adds the backbone's level at every step: light and fast.

    Args:
        channels: of the last step.

    Raises:
        ValueError: a level of the backbone has fewer than 4 channels.

    Reference: Chaurasia and Culurciello, "LinkNet", VCIP 2017, arXiv 1707.03718.
    """

    def __init__(self, spec: FeatureSpec, out_channels: int, /, *, channels: int = 32) -> None:
        super().__init__(spec, out_channels)
        if min(spec.channels) < 4:
            raise ValueError(
                f"linknet divides each level's channels by 4, but this backbone's levels have "
                f"{', '.join(map(str, spec.channels))}; use a wider backbone or another head"
            )
        decoder = LinknetDecoder(
            self.pyramid.channels, prefinal_channels=channels, n_blocks=self.pyramid.depth
        )
        self.build(decoder, channels, kernel_size=1)
