"""Pyramid attention network decoder."""

from segmentation_models_pytorch.decoders.pan.decoder import PANDecoder
from torch import Tensor

from mtlkit import FeatureSpec
from mtlkit_heads._decoder import Decoder, pooled_norm
from mtlkit_heads._pyramid import resize

_SMALLEST = 16  # pixels, of which three poolings leave 2


class PAN(Decoder):
    """Attention over the last level at three scales, then over the finer levels' channels.

    The last level is enlarged to at least 16 x 16, because the attention pools it three times.
    Branches pooled to 1 x 1 have group instead of batch normalisation.

    Args:
        channels: of all maps of the decoder.

    Reference: Li et al., "Pyramid Attention Network", BMVC 2018, arXiv 1805.10180.
    """

    def __init__(self, spec: FeatureSpec, out_channels: int, /, *, channels: int = 32) -> None:
        super().__init__(spec, out_channels)
        depth = self.pyramid.depth
        decoder = PANDecoder(self.pyramid.channels, encoder_depth=depth, decoder_channels=channels)
        decoder.fpa.branch1[1].bn = pooled_norm(channels)
        for name in ("gau1", "gau2", "gau3")[: depth - 2]:
            getattr(decoder, name).conv1[1].bn = pooled_norm(channels)
        self.build(decoder, channels, kernel_size=3)

    def decode(self, pyramid: list[Tensor]) -> Tensor:
        """What the decoder makes of the pyramid."""
        height, width = (max(_SMALLEST, side) for side in pyramid[-1].shape[-2:])
        return super().decode([*pyramid[:-1], resize(pyramid[-1], (height, width))])
