"""Feature pyramid network decoder."""

from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder


class FPN(Decoder):
    """Merges the levels of strides 4 to 32 top down, and predicts at stride 4 from their sum.

    Args:
        pyramid_channels: of the merged levels.
        channels: of the map that the prediction is made from; a multiple of 32.
        dropout: share of that map's channels left out in training, in [0, 1).

    Raises:
        ValueError: ``channels`` is no multiple of 32.

    Reference: Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, arXiv 1901.02446.
    """

    least_depth = 5

    def __init__(
        self,
        spec: FeatureSpec,
        out_channels: int,
        /,
        *,
        pyramid_channels: int = 256,
        channels: int = 128,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(spec, out_channels)
        if channels % 32:
            raise ValueError(f"channels of fpn must be a multiple of 32, but got {channels}")
        decoder = FPNDecoder(
            self.pyramid.channels,
            encoder_depth=self.pyramid.depth,
            pyramid_channels=pyramid_channels,
            segmentation_channels=channels,
            dropout=dropout,
        )
        self.build(decoder, channels, kernel_size=1)
