"""MTAN: a shared network, and soft masks with which each task picks its features from it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtlkit import Backbone, Features, FeatureSpec
from mtlkit_backbones._vgg import (
    Decoder,
    Encoded,
    Encoder,
    Norm,
    Stage,
    conv,
    conv_relu,
    kaiming,
)
from mtlkit_backbones._vgg_weights import check_pretrained, load_vgg, normalisation

Look = Callable[[str, Tensor], None]
"""Is shown each mask of a task."""


class MTAN(Backbone):
    """SegNet shared by all tasks, of whose blocks each task masks what it needs.

    The levels of a task are its attended features after each block (strides 2 to 32).

    Args:
        attention: ``encoder`` masks the encoder's blocks and decodes the last attended features
            of a dense task with the shared decoder; ``encoder-decoder`` runs the shared decoder
            on the shared features and masks its stages for every dense task.
        width: channels of the first block; the others have 2, 4, 8 and 8 times as many.
        norm: ``batch`` normalises after every convolution, ``none`` leaves that out.
        pretrained: true starts the encoder from timm's ImageNet weights of VGG-16, a path from a
            local file with timm's or torchvision's names; ImageNet weights need width 64.

    Reference: Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
    arXiv 1803.10704, eq. 1 to 3. As in the authors' code the decoder's masks see the unpooled
    map, and upsampling aligns corners. Unlike it, the last convolution of a decoder's stage
    reduces the channels, and convolutions outside the encoder have no bias before batch norm.
    The tasks go one after the other, each through a graph of its own, so that each task's gradient
    can be taken alone: convolving the maps of all tasks as one batch is faster on small maps, but
    each task's gradient would then go through the others' maps as well.
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
        attention: Literal["encoder", "encoder-decoder"] = "encoder",
        width: int = 64,
        norm: Literal["batch", "none"] = "batch",
        pretrained: bool | Path = False,
    ) -> None:
        super().__init__(tasks, dense_tasks, in_channels)
        check_pretrained(pretrained, width)
        self.masks_decoder = attention == "encoder-decoder"
        self.norm = norm
        self.pretrained = pretrained
        self.mean, self.std = normalisation(pretrained)
        self.encoder = Encoder(in_channels, width, norm)
        self.decoder = Decoder(width, norm) if self.dense_tasks else None
        channels = self.encoder.channels
        outputs = (*channels[1:], channels[-1])
        self._add_encoder_attention(channels, outputs)
        if self.masks_decoder and self.dense_tasks:
            self._add_decoder_attention(channels[::-1], (width, *channels[:-1])[::-1])
        self.spec = FeatureSpec(
            channels=outputs, strides=(2, 4, 8, 16, 32), dense=width if self.dense_tasks else None
        )

    def _add_encoder_attention(self, channels: Sequence[int], outputs: Sequence[int]) -> None:
        inputs = [
            channels[0],
            *(c + out for c, out in zip(channels[1:], outputs[:-1], strict=True)),
        ]
        self.encoder_masks = nn.ModuleDict(
            {task: _masks(inputs, channels, self.norm) for task in self.tasks}
        )
        self.encoder_convs = _convs(channels, outputs, self.norm)

    def _add_decoder_attention(self, channels: Sequence[int], outputs: Sequence[int]) -> None:
        inputs = [c + out for c, out in zip(channels, outputs, strict=True)]
        self.decoder_masks = nn.ModuleDict(
            {task: _masks(inputs, outputs, self.norm) for task in self.dense_tasks}
        )
        self.decoder_convs = _convs(channels, outputs, self.norm)

    def encode(self, images: Tensor) -> Encoded:
        """The shared encoder's blocks and where they pooled."""
        self.check_size(images.shape[-2], images.shape[-1])
        encoded: Encoded = self.encoder(images, self.recompute)
        return encoded

    def route(self, shared: Encoded, tasks: Sequence[str], /) -> dict[str, Features]:
        """What the masks of each task let through."""
        return self._attend(shared, tasks, _forget)

    def attention(self, images: Tensor) -> dict[str, list[Tensor]]:
        """The masks of each task, ``[B, C_i, H_i, W_i]`` in [0, 1]: encoder, then decoder."""
        masks: dict[str, list[Tensor]] = {task: [] for task in self.tasks}
        self._attend(self.encode(images), self.tasks, lambda task, mask: masks[task].append(mask))
        return masks

    def own_modules(self, task: str, /) -> Iterable[nn.Module]:
        """The masks are a task's own, all convolutions that follow them are shared."""
        yield self.encoder_masks[task]
        if self.masks_decoder and task in self.dense_tasks:
            yield self.decoder_masks[task]

    def initialise(self) -> list[str]:
        """Load VGG-16's weights into the encoder, if asked to."""
        return load_vgg(self.encoder, self.pretrained, self.norm)

    def _attend(self, shared: Encoded, tasks: Sequence[str], look: Look) -> dict[str, Features]:
        """Features of each task; ``look`` is shown the masks."""
        stages: list[Stage] = []
        if self.masks_decoder and self.decoder is not None and {*tasks} & {*self.dense_tasks}:
            stages = self.decoder(shared.pooled, shared.indices, self.recompute)
        attended = {}
        for task in tasks:
            levels = self._attend_encoder(task, shared, look)
            dense = None
            if self.decoder is not None and task in self.dense_tasks:
                if self.masks_decoder:
                    dense = self._attend_decoder(task, stages, levels[-1], look)
                else:
                    dense = self.decoder(levels[-1], shared.indices, self.recompute)[-1].last
            attended[task] = Features(tuple(levels), dense)
        return attended

    def _attend_encoder(self, task: str, shared: Encoded, look: Look) -> list[Tensor]:
        levels: list[Tensor] = []
        blocks = zip(
            self._masks_of(self.encoder_masks, task),
            self.encoder_convs,
            shared.firsts,
            shared.lasts,
            strict=True,
        )
        for make_mask, convolve, first, last in blocks:
            seen = (first, *levels[-1:])
            level, mask = self.recompute(_attend_block, make_mask, convolve, last, *seen)
            levels.append(level)
            look(task, mask)
        return levels

    def _attend_decoder(
        self, task: str, stages: Sequence[Stage], feature: Tensor, look: Look
    ) -> Tensor:
        blocks = zip(
            self._masks_of(self.decoder_masks, task), self.decoder_convs, stages, strict=True
        )
        for make_mask, convolve, stage in blocks:
            feature, mask = self.recompute(_attend_stage, make_mask, convolve, *stage, feature)
            look(task, mask)
        return feature

    @staticmethod
    def _masks_of(masks: nn.ModuleDict, task: str) -> nn.ModuleList:
        return cast(nn.ModuleList, masks[task])


def _forget(task: str, mask: Tensor) -> None:
    """Masks are large, and only pictures need them."""


def _attend_block(
    make_mask: nn.Sequential, convolve: nn.Module, last: Tensor, *seen: Tensor
) -> tuple[Tensor, Tensor]:
    """A task's features after a block of the encoder, and their mask."""
    mask: Tensor = make_mask(torch.cat(seen, 1))
    return F.max_pool2d(convolve(mask * last), 2), mask


def _attend_stage(
    make_mask: nn.Sequential, convolve: nn.Module, unpooled: Tensor, last: Tensor, feature: Tensor
) -> tuple[Tensor, Tensor]:
    """A task's features after a stage of the decoder, and their mask."""
    larger = F.interpolate(feature, scale_factor=2, mode="bilinear", align_corners=True)
    mask: Tensor = make_mask(torch.cat((unpooled, convolve(larger)), 1))
    return mask * last, mask


def _masks(inputs: Sequence[int], outputs: Sequence[int], norm: Norm) -> nn.ModuleList:
    """What makes a task's masks, one for each block."""
    return nn.ModuleList(_mask(i, o, norm) for i, o in zip(inputs, outputs, strict=True))


def _mask(in_channels: int, out_channels: int, norm: Norm) -> nn.Sequential:
    mask = nn.Sequential(
        *conv(in_channels, out_channels, norm, kernel=1),
        nn.ReLU(inplace=True),
        *conv(out_channels, out_channels, norm, kernel=1),
        nn.Sigmoid(),
    )
    kaiming(mask)
    return mask


def _convs(inputs: Sequence[int], outputs: Sequence[int], norm: Norm) -> nn.ModuleList:
    """The convolutions that all tasks share, one for each block."""
    convs = nn.ModuleList(conv_relu(i, o, norm) for i, o in zip(inputs, outputs, strict=True))
    kaiming(convs)
    return convs
