"""The default head of dense tasks."""

from importlib import import_module
from typing import Literal

from torch import Tensor, nn

from mtlkit import Features, FeatureSpec, Head
from mtlkit_heads import mtlkit_heads
from mtlkit_heads._pyramid import resize


class Dense(Head):
    """Reads the map of a backbone that decodes by itself; otherwise decodes the levels.

    The map gets one 3 x 3 convolution and nothing else, as in SegNet: at the images' own size
    anything more would cost as much as a block of the backbone, for every dense task.

    Args:
        decoder: head, with its defaults, for a backbone that does not decode by itself; choose that
            head instead of this one to set its options.

    Raises:
        ValueError: there is no such decoder.
    """

    output = "map"
    reads_dense = True

    def __init__(
        self,
        spec: FeatureSpec,
        out_channels: int,
        /,
        *,
        decoder: Literal[
            "deeplabv3",
            "deeplabv3plus",
            "dpt",
            "fpn",
            "linknet",
            "manet",
            "pan",
            "pspnet",
            "segformer",
            "unet",
            "unetplusplus",
            "upernet",
        ] = "unet",
    ) -> None:
        super().__init__(spec, out_channels)
        if spec.dense is None:
            self.predict: nn.Module = _decoder(decoder)(spec, out_channels)
        else:
            self.predict = nn.Conv2d(spec.dense, out_channels, 3, padding=1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Predict at ``size``."""
        if self.spec.dense is None:
            prediction: Tensor = self.predict(features, size)
            return prediction
        assert features.dense is not None, "the backbone declares a dense map and returned none"
        return resize(self.predict(features.dense), size)


def _decoder(name: str) -> type[Head]:
    """The class of the decoder, whose module imports segmentation_models_pytorch."""
    homes = {n: home for n, home in mtlkit_heads().items() if n not in _NO_DECODERS}
    if name not in homes:
        raise ValueError(f"decoder must be one of {', '.join(homes)}, but got '{name}'")
    module, _, attribute = homes[name].partition(":")
    found: type[Head] = getattr(import_module(module), attribute)
    return found


_NO_DECODERS = ("dense", "linear", "spatial")
