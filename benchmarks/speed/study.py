"""SegNet and MTAN as the study wrote them: one layer after the other, and a loop over the tasks.

What mtlkit's own are measured against, and held against in the tests: parameters and buffers have
the same names here and there. The study's had three tasks, masks in the encoder, and batch norm.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = (2, 2, 3, 3, 3)
Maps = tuple[list[Tensor], Tensor | None]
"""Features of a task, finest first, and its decoded map."""


def conv(
    c_in: int, c_out: int, norm: str, kernel: int = 3, *, bias: bool = False
) -> list[nn.Module]:
    """A convolution, and batch norm if wanted."""
    layer = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias or norm == "none")
    return [layer, nn.BatchNorm2d(c_out)] if norm == "batch" else [layer]


def conv_relu(c_in: int, c_out: int, norm: str, *, bias: bool = False) -> nn.Sequential:
    """A 3x3 convolution with ReLU."""
    return nn.Sequential(*conv(c_in, c_out, norm, bias=bias), nn.ReLU())


def masks(inputs: Sequence[int], outputs: Sequence[int], norm: str) -> nn.ModuleList:
    """What makes a task's soft masks, one for each block."""
    return nn.ModuleList(
        nn.Sequential(*conv(i, o, norm, 1), nn.ReLU(), *conv(o, o, norm, 1), nn.Sigmoid())
        for i, o in zip(inputs, outputs, strict=True)
    )


class Encoder(nn.Module):
    """VGG-16's convolutions."""

    def __init__(self, in_channels: int, channels: Sequence[int], norm: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for depth, c in zip(DEPTHS, channels, strict=True):
            inputs = (in_channels, *[c] * (depth - 1))
            self.blocks.append(nn.ModuleList(conv_relu(i, c, norm, bias=True) for i in inputs))
            in_channels = c

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
        """First and last outputs of the blocks, the pooling indices, and the last pooled map."""
        firsts, lasts, indices = [], [], []
        for block in self.blocks:
            for number, layer in enumerate(block):
                x = layer(x)
                if number == 0:
                    firsts.append(x)
            lasts.append(x)
            x, where = F.max_pool2d(x, 2, return_indices=True)
            indices.append(where)
        return firsts, lasts, indices, x


class Decoder(nn.Module):
    """The encoder's mirror image."""

    def __init__(self, channels: Sequence[int], outputs: Sequence[int], norm: str) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for depth, c, last in zip(DEPTHS[::-1], channels, outputs, strict=True):
            stage = [conv_relu(c, o, norm) for o in (*[c] * (depth - 1), last)]
            self.stages.append(nn.ModuleList(stage))

    def forward(self, x: Tensor, indices: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The unpooled map and the output of each stage, coarsest first."""
        outputs = []
        for stage, where in zip(self.stages, indices[::-1], strict=True):
            unpooled = x = F.max_unpool2d(x, where, 2)
            for layer in stage:
                x = layer(x)
            outputs.append((unpooled, x))
        return outputs


class SegNet(nn.Module):
    """An encoder for all tasks, and a decoder for the dense ones."""

    def __init__(
        self,
        tasks: Sequence[str],
        dense_tasks: Sequence[str],
        in_channels: int = 3,
        *,
        width: int = 64,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.tasks, self.dense_tasks = tasks, dense_tasks
        self.channels = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.narrower = [width, *self.channels[:-1]]
        self.encoder = Encoder(in_channels, self.channels, norm)
        if dense_tasks:
            self.decoder = Decoder(self.channels[::-1], self.narrower[::-1], norm)

    def forward(self, x: Tensor) -> dict[str, Maps]:
        """What each task gets."""
        _, lasts, indices, pooled = self.encoder(x)
        decoded = self.decoder(pooled, indices)[-1][1] if self.dense_tasks else None
        dense = {task: decoded if task in self.dense_tasks else None for task in self.tasks}
        return {task: ([*lasts, pooled], dense[task]) for task in self.tasks}


class MTAN(SegNet):
    """SegNet, and masks with which each task picks from its blocks."""

    def __init__(
        self,
        tasks: Sequence[str],
        dense_tasks: Sequence[str],
        in_channels: int = 3,
        *,
        width: int = 64,
        norm: str = "batch",
        attention: str = "encoder",
    ) -> None:
        super().__init__(tasks, dense_tasks, in_channels, width=width, norm=norm)
        c, narrower = self.channels, self.narrower
        wider = [*c[1:], c[-1]]
        seen = [c[0], *(a + b for a, b in zip(c[1:], wider[:-1], strict=True))]
        self.encoder_masks = nn.ModuleDict({task: masks(seen, c, norm) for task in tasks})
        self.encoder_convs = nn.ModuleList(map(conv_relu, c, wider, [norm] * 5))
        self.masks_decoder = attention == "encoder-decoder" and bool(dense_tasks)
        if self.masks_decoder:
            seen = [a + b for a, b in zip(c, narrower, strict=True)][::-1]
            self.decoder_masks = nn.ModuleDict(
                {task: masks(seen, narrower[::-1], norm) for task in dense_tasks}
            )
            self.decoder_convs = nn.ModuleList(map(conv_relu, c[::-1], narrower[::-1], [norm] * 5))

    def forward(self, x: Tensor) -> dict[str, Maps]:
        """What each task gets."""
        firsts, lasts, indices, pooled = self.encoder(x)
        if self.masks_decoder:
            stages = self.decoder(pooled, indices)
        found: dict[str, Maps] = {}
        for task in self.tasks:
            levels: list[Tensor] = []
            for j in range(5):
                seen = torch.cat([firsts[j], *levels[-1:]], 1)
                picked = self.encoder_masks[task][j](seen) * lasts[j]
                levels.append(F.max_pool2d(self.encoder_convs[j](picked), 2))
            dense = None
            if task in self.dense_tasks and not self.masks_decoder:
                dense = self.decoder(levels[-1], indices)[-1][1]
            elif task in self.dense_tasks:
                dense = levels[-1]
                for j, (unpooled, last) in enumerate(stages):
                    dense = F.interpolate(
                        dense, scale_factor=2, mode="bilinear", align_corners=True
                    )
                    seen = torch.cat([unpooled, self.decoder_convs[j](dense)], 1)
                    dense = self.decoder_masks[task][j](seen) * last
            found[task] = (levels, dense)
        return found
