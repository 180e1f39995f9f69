"""DeepLabV3+ decoder."""

from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import nn

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder, pooled_norm
from mtlkit_heads._dilation import dilations


class DeepLabV3Plus(Decoder):
    """Dilated convolutions over the last level, joined with the level of stride 4.

    The branch that is pooled to 1 x 1 has group instead of batch normalisation.

    Args:
        channels: of all maps of the decoder.
        rates: three dilations for a last level of stride 8; they shrink as the stride grows.
        dropout: share of values left out in training, in [0, 1).

    Raises:
        ValueError: ``rates`` are not three positive numbers.

    Reference: Chen et al., "Encoder-Decoder with Atrous Separable Convolution", ECCV 2018,
        arXiv 1802.02611.
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
        depth = self.pyramid.depth
        decoder = DeepLabV3PlusDecoder(
            self.pyramid.channels,
            encoder_depth=depth,
            out_channels=channels,
            atrous_rates=dilations(rates, depth),
            output_stride=16,
            aspp_separable=True,
            aspp_dropout=dropout,
        )
        decoder.aspp[0].convs[-1][2] = pooled_norm(channels)
        # smp enlarges by 2 or 4 only, for dilated backbones
        decoder.up = nn.Upsample(scale_factor=2 ** (depth - 2), mode="bilinear")
        self.build(decoder, channels, kernel_size=1)
