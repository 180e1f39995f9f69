"""One row per backbone and way of building it: what every backbone must do is tested on all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from mtlkit_backbones.any_timm import Timm
from mtlkit_backbones.mtan import MTAN
from mtlkit_backbones.segnet import SegNet
from mtlkit_backbones.vgg16 import VGG16
from torch import Tensor

from mtlkit import Backbone, Features

TASKS = ("seg", "cls", "edge")
DENSE = ("seg", "edge")


@dataclass(frozen=True)
class Case:
    build: Callable[..., Backbone]
    options: dict[str, Any] = field(default_factory=dict)
    in_channels: int = 3
    tasks: tuple[str, ...] = TASKS
    dense_tasks: tuple[str, ...] = DENSE

    def __call__(self) -> Backbone:
        torch.manual_seed(0)
        return self.build(self.tasks, self.dense_tasks, self.in_channels, **self.options)


CASES = {
    "segnet": Case(SegNet, {"width": 4}),
    "segnet without norm": Case(SegNet, {"width": 4, "norm": "none"}),
    "segnet without dense tasks": Case(SegNet, {"width": 4}, dense_tasks=()),
    "segnet of one channel": Case(SegNet, {"width": 4}, in_channels=1),
    "vgg16": Case(VGG16, {"width": 4}),
    "vgg16 without norm": Case(VGG16, {"width": 4, "norm": "none"}),
    "mtan": Case(MTAN, {"width": 4}),
    "mtan without norm": Case(MTAN, {"width": 4, "norm": "none"}),
    "mtan without dense tasks": Case(MTAN, {"width": 4}, dense_tasks=()),
    "mtan of one channel and task": Case(MTAN, {"width": 4}, 1, ("seg",), ("seg",)),
    "mtan decoder": Case(MTAN, {"width": 4, "attention": "encoder-decoder"}),
    "mtan decoder without dense tasks": Case(
        MTAN, {"width": 4, "attention": "encoder-decoder"}, dense_tasks=()
    ),
    "resnet18": Case(Timm, {"model": "resnet18"}),
    "mobilenetv2 of one channel": Case(Timm, {"model": "mobilenetv2_100"}, in_channels=1),
    "vit": Case(Timm, {"model": "vit_tiny_patch16_224", "options": {"depth": 4}}),
    "convnext": Case(Timm, {"model": "convnext_atto"}),
    "swin": Case(
        Timm,
        {
            "model": "swin_tiny_patch4_window7_224",
            "options": {"embed_dim": 24, "depths": (1, 1, 2, 1), "img_size": 96},
        },
    ),
}


def images(backbone: Backbone, height: int = 64, width: int = 96, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, backbone.in_channels, height, width, generator=generator)


def features(backbone: Backbone, x: Tensor, tasks: tuple[str, ...] = ()) -> dict[str, Features]:
    return backbone.route(backbone.encode(x), tasks or backbone.tasks)


def what_a_head_reads(features: Features) -> Tensor:
    """The decoded map where there is one, else the last level."""
    return features.levels[-1] if features.dense is None else features.dense
