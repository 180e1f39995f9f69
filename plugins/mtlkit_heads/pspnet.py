"""PSPNet decoder."""

from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder


class PSPNet(Decoder):
    """Pools the last level on grids of 1, 2, 3 and 6, and predicts at that level's resolution.

    The branch that is pooled to 1 x 1 has no batch normalisation.

    Args:
        channels: of the map that the prediction is made from.
        dropout: share of that map's channels left out in training, in [0, 1).

    Raises:
        ValueError: the last level's channels are no multiple of 4.

    Reference: Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, arXiv 1612.01105.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        out_channels: int,
        /,
        *,
        channels: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(spec, out_channels)
        if self.pyramid.channels[-1] % 4:
            raise ValueError(
                f"pspnet divides the last level's channels by 4, but this backbone's has "
                f"{self.pyramid.channels[-1]}; use another head"
            )
        decoder = PSPDecoder(self.pyramid.channels, out_channels=channels, dropout=dropout)
        self.build(decoder, channels, kernel_size=3)
