"""UPerNet decoder."""

from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder, pooled_norm


class UPerNet(Decoder):
    """Pyramid pooling over the last level, then a feature pyramid, predicting at stride 4.

    The branch that is pooled to 1 x 1 has group instead of batch normalisation.

    Args:
        channels: of all maps of the decoder.

    Reference: Xiao et al., "Unified Perceptual Parsing", ECCV 2018, arXiv 1807.10221.
    """

    def __init__(self, spec: FeatureSpec, out_channels: int, /, *, channels: int = 256) -> None:
        super().__init__(spec, out_channels)
        decoder = UPerNetDecoder(
            self.pyramid.channels, encoder_depth=self.pyramid.depth, decoder_channels=channels
        )
        decoder.psp.blocks[0][1][1] = pooled_norm(channels)
        self.build(decoder, channels, kernel_size=1)
