"""SegFormer decoder."""

from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder


class SegFormer(Decoder):
    """A linear layer per level, all brought to stride 4, joined and mixed by one convolution.

    Args:
        channels: of all maps of the decoder.

    Reference: Xie et al., "SegFormer", NeurIPS 2021, arXiv 2105.15203.
    """

    def __init__(self, spec: FeatureSpec, out_channels: int, /, *, channels: int = 256) -> None:
        super().__init__(spec, out_channels)
        decoder = SegformerDecoder(
            self.pyramid.channels,
            encoder_depth=self.pyramid.depth,
            segmentation_channels=channels,
        )
        self.build(decoder, channels, kernel_size=1)
