"""DeepLabV3 decoder."""

from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3Decoder

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder, pooled_norm
from mtlkit_heads._dilation import dilations


class DeepLabV3(Decoder):
    """Dilated convolutions at several rates over the last level, predicting at its resolution.

    The branch that is pooled to 1 x 1 has group instead of batch normalisation.

    Args:
        channels: of all maps of the decoder.
        rates: three dilations for a last level of stride 8; they shrink as the stride grows.
        dropout: share of values left out in training, in [0, 1).

    Raises:
        ValueError: ``rates`` are not three positive numbers.

    Reference: Chen et al., "Rethinking Atrous Convolution", 2017, arXiv 1706.05587.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        out_channels: int,
        /,
        *,
        channels: int = 256,
        rates: tuple[int, int, int] = (12, 24, 36),
        dropout: float = 0.5,
    ) -> None:
        super().__init__(spec, out_channels)
        decoder = DeepLabV3Decoder(
            self.pyramid.channels[-1],
            channels,
            dilations(rates, self.pyramid.depth),
            aspp_separable=False,
            aspp_dropout=dropout,
        )
        decoder.aspp.convs[-1][2] = pooled_norm(channels)
        self.build(decoder, channels, kernel_size=1)
