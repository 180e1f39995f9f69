"""SegNet: an encoder like VGG-16, and a decoder that unpools where the encoder pooled."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor

from mtlkit import Backbone, Features, FeatureSpec
from mtlkit_backbones._vgg import Decoder, Encoded, Encoder
from mtlkit_backbones._vgg_weights import check_pretrained, load_vgg, normalisation


class SegNet(Backbone):
    """VGG-16's encoder for all tasks, and one mirrored decoder for all dense tasks.

    The levels are the five blocks before pooling (strides 1 to 16) and the pooled last one
    (stride 32): the pyramid that segmentation_models_pytorch's decoders expect of VGG-16.

    Args:
        width: channels of the first block; the others have 2, 4, 8 and 8 times as many.
        norm: ``batch`` normalises after every convolution, ``none`` leaves that out.
        pretrained: true starts the encoder from timm's ImageNet weights of VGG-16, a path from a
            local file with timm's or torchvision's names; ImageNet weights need width 64.

    Reference: Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture
    for Image Segmentation", PAMI 2017, arXiv 1511.00561. Here convolutions of the decoder that
    batch norm follows have no bias.
    """

    decodes: ClassVar[bool] = True
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
        self.decoder = Decoder(width, norm) if self.dense_tasks else None
        self.spec = FeatureSpec(
            channels=(*self.encoder.channels, self.encoder.channels[-1]),
            strides=(1, 2, 4, 8, 16, 32),
            dense=width if self.dense_tasks else None,
        )

    def encode(self, images: Tensor) -> Encoded:
        """The encoder's blocks and where they pooled."""
        self.check_size(images.shape[-2], images.shape[-1])
        encoded: Encoded = self.encoder(images, self.recompute)
        return encoded._replace(firsts=())  # which nothing here reads

    def route(self, shared: Encoded, tasks: Sequence[str], /) -> dict[str, Features]:
        """The pyramid for every task; the decoder runs once, if a dense task is asked for."""
        features = dict.fromkeys(tasks, Features((*shared.lasts, shared.pooled)))
        dense = [task for task in tasks if task in self.dense_tasks]
        if self.decoder is not None and dense:
            stages = self.decoder(shared.pooled, shared.indices, self.recompute)
            decoded = stages[-1].last  # [B, width, H, W]
            features |= {task: features[task]._replace(dense=decoded) for task in dense}
        return features

    def initialise(self) -> list[str]:
        """Load VGG-16's weights into the encoder, if asked to."""
        return load_vgg(self.encoder, self.pretrained, self.norm)
