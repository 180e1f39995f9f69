"""Dense prediction transformer decoder."""

from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from torch import Tensor

from mtlkit import Features, FeatureSpec
from mtlkit_heads._decoder import Decoder
from mtlkit_heads._pyramid import is_plain, resize


class DPT(Decoder):
    """Fuses four levels top down with residual convolutions, predicting at stride 2.

    The levels of a plain vision transformer are brought to strides 4 to 32 by learned
    convolutions. Class tokens are not read.

    Args:
        level_channels: of each of the four levels before fusion, finest first.
        channels: of the fused maps.

    Raises:
        ValueError: ``level_channels`` are not four numbers.

    Reference: Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021,
        arXiv 2103.13413.
    """

    least_depth = 5

    def __init__(
        self,
        spec: FeatureSpec,
        out_channels: int,
        /,
        *,
        level_channels: tuple[int, int, int, int] = (96, 192, 384, 768),
        channels: int = 256,
    ) -> None:
        super().__init__(spec, out_channels)
        if len(level_channels) != 4:
            raise ValueError(f"level_channels must be four numbers, but got {len(level_channels)}")
        self.learns_scales = is_plain(spec) and len(spec.strides) >= 4
        decoder = DPTDecoder(
            self.pyramid.channels[-4:],
            (16, 16, 16, 16) if self.learns_scales else (4, 8, 16, 32),
            readout="ignore",
            intermediate_channels=tuple(level_channels),
            fusion_channels=channels,
        )
        self.build(decoder, channels, kernel_size=3)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Predict at stride 2 and upsample to ``size``."""
        if self.learns_scales:
            even = (_even(size[0]), _even(size[1]))
            levels = [resize(level, even) for level in features.levels[-4:]]
        else:
            levels = self.pyramid(features.levels, size)[-4:]
        return resize(self.predict(self.decoder(levels, [None] * 4)), size)


def _even(side: int) -> int:
    """Side of the map of stride 16 that can be halved, and whose half is more than one pixel."""
    return 2 * max(2, -(-side // 32))
