"""VGG-16 without its classifier, as a pyramid of features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from mtlkit import Backbone, Features, FeatureSpec
from mtlkit_backbones._vgg import Encoder
from mtlkit_backbones._vgg_weights import check_pretrained, load_vgg, normalisation


class VGG16(Backbone):
    """The 13 convolutions of VGG-16, the same features for all tasks.

    The levels are the five blocks before pooling (strides 1 to 16) and the pooled last one
    (stride 32).

    Args:
        width: channels of the first block; the others have 2, 4, 8 and 8 times as many.
        norm: ``batch`` normalises after every convolution, ``none`` leaves that out.
        pretrained: true starts from timm's ImageNet weights, a path from a local file with timm's
            or torchvision's names; ImageNet weights need width 64.

    Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015, arXiv 1409.1556, configuration D.
    """

    recomputes = True

    def __init__(
        self,
        tasks: Sequence[str],
        dense_tasks: Sequence[str] = (),
        in_channels: int = 3,
        /,
        *,
        width: int = 64,
        norm: Literal["batch", "none"] = "batch",
        pretrained: bool | Path = False,
    ) -> None:
        super().__init__(tasks, dense_tasks, in_channels)
        check_pretrained(pretrained, width)
        self.norm = norm
        self.pretrained = pretrained
        self.mean, self.std = normalisation(pretrained)
        self.encoder = Encoder(in_channels, width, norm)
        self.spec = FeatureSpec(
            channels=(*self.encoder.channels, self.encoder.channels[-1]),
            strides=(1, 2, 4, 8, 16, 32),
        )

    def encode(self, images: Tensor) -> Features:
        """The pyramid."""
        self.check_size(images.shape[-2], images.shape[-1])
        encoded = self.encoder(images, self.recompute)
        return Features((*encoded.lasts, encoded.pooled))

    def initialise(self) -> list[str]:
        """Load VGG-16's weights, if asked to."""
        return load_vgg(self.encoder, self.pretrained, self.norm)
