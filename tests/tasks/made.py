"""One of each task, with random batches for it."""

from typing import Any

import torch
from mtlkit_tasks.bbox import BBox
from mtlkit_tasks.cls import Classification
from mtlkit_tasks.colourise import Colourise
from mtlkit_tasks.denoise import Denoise
from mtlkit_tasks.depth import Depth
from mtlkit_tasks.edge import Edge
from mtlkit_tasks.normals import Normals
from mtlkit_tasks.seg import Segmentation
from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, TargetSpec, Task

SIZE = (16, 24)
SPEC = DatasetSpec(
    {
        "seg": TargetSpec("mask", ("background", "cat", "dog")),
        "pet": TargetSpec("mask", ("background", "pet")),
        "cls": TargetSpec("class", ("cat", "dog", "bird")),
        "breed": TargetSpec("class", ("beagle", "bengal")),
        "bbox": TargetSpec("box"),
        "depth": TargetSpec("map", quantity="distance"),
        "disparity": TargetSpec("map", quantity="inverse-distance"),
        "normals": TargetSpec("map", channels=3, quantity="direction"),
        "heights": TargetSpec("map"),
    }
)
LOSSES: dict[type[Task], tuple[dict[str, Any], ...]] = {
    Segmentation: (
        {"loss": "ce"},
        {"loss": "ce", "label_smoothing": 0.1},
        {"loss": "focal"},
        {"loss": "dice"},
        {"loss": "jaccard"},
        {"loss": "tversky"},
    ),
    Classification: ({}, {"label_smoothing": 0.1}),
    BBox: tuple({"loss": loss} for loss in ("mse", "l1", "smooth-l1", "giou", "diou")),
    Denoise: ({"loss": "mse"}, {"loss": "l1"}),
    Edge: ({"loss": "l1"}, {"loss": "bce"}),
    Colourise: ({},),
    Depth: ({"loss": "l1"}, {"loss": "mse"}, {"loss": "log"}),
    Normals: ({},),
}
CASES = [(kind, options) for kind, several in LOSSES.items() for options in several]
NAMES = ["-".join([kind.__name__, *map(str, options.values())]) for kind, options in CASES]


def images(batch: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(3)
    return torch.rand(batch, 3, *SIZE, generator=random, dtype=dtype)


def make(kind: type[Task], **options: Any) -> Task:
    return kind(kind.label or "own", SPEC, SIZE, **options)


def batch_for(task: Task, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """A raw prediction, a target and which of the six samples have one."""
    random = torch.Generator().manual_seed(0)
    shape = (task.out_channels, *SIZE) if task.output == "map" else (task.out_channels,)
    prediction = torch.randn(6, *shape, generator=random, dtype=dtype) / 2
    present = torch.tensor([True, False, True, True, False, True])
    if task.kind == "mask":
        target = torch.randint(0, 3, (6, *SIZE), generator=random).byte()
        target[:, :3] = 255
        target[3] = 255
    elif task.kind == "class":
        target = torch.randint(0, 3, (6,), generator=random)
    elif task.kind == "box":
        corners = torch.rand(6, 2, 2, generator=random, dtype=dtype).sort(dim=1).values
        target = corners.flatten(1)
    elif task.kind == "map":
        target = torch.randn(6, task.out_channels, *SIZE, generator=random, dtype=dtype)
        target = target.abs() if task.out_channels == 1 else F.normalize(target)
        target[:, :, :3] = 0
        target[3] = 0
    else:
        target = task.make_target(images(dtype=dtype))
    return prediction, target, present
