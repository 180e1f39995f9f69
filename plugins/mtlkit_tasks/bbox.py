"""The box of the one main object."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchvision import ops

from mtlkit import DatasetSpec, Decoded, Task
from mtlkit_tasks._drawing import rectangle
from mtlkit_tasks._sums import labelled_elements, labelled_sum


class BBox(Task):
    """Corners of one axis-parallel box.

    Targets are corners in [0, 1]. The raw prediction is how far each corner's coordinate lies
    from those of the box over the middle half of the picture, so that an untrained head is not
    far off; it is not clipped.

    Args:
        target: name of the box in the dataset; by default the one called like the task, or bbox.
        loss: ``mse``, ``l1`` and ``smooth-l1`` (knee at 0.1) are means over the four coordinates;
            ``giou``, ``diou`` and ``ciou`` compare overlap.

    Raises:
        ValueError: the dataset has no such box.
    """

    kind = "box"
    label = "bbox"
    output = "vector"
    default_head = "spatial"
    metric_names = ("l2", "iou")
    primary = "iou"
    out_channels = 4

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        target: str | None = None,
        loss: Literal["mse", "l1", "smooth-l1", "giou", "diou", "ciou"] = "smooth-l1",
    ) -> None:
        super().__init__(id, spec, image_size, target=target)
        self.criterion = loss

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Summed over labelled samples."""
        each = _each(self.criterion, corners(prediction), target)
        return labelled_sum(each, present), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Labelled samples."""
        return labelled_elements(target[:, 0], present)

    def metric(self) -> Any:
        """Squared error in pixels of the network's input, and IoU."""
        return BoxError(self.image_size)

    def update(self, metric: Any, prediction: Tensor, target: Tensor, present: Tensor) -> None:
        """Add errors and overlaps; nothing is read back from the device."""
        metric.update(corners(prediction), target, present)

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``box``: [x1, y1, x2, y2] in pixels of ``image``, in order and inside it."""
        return self.decode_target(ordered(corners(prediction)).clamp(0, 1), image)

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """The same of the truth."""
        height, width = image.shape[-2:]
        return {"box": (target.double().cpu() * torch.tensor([width, height] * 2)).tolist()}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The picture with the box's outline."""
        return rectangle(image, decoded["box"])


def corners(prediction: Tensor) -> Tensor:
    """Raw predictions [..., 4] as corners in units of the picture's sides, not clipped."""
    return prediction + prediction.new_tensor([0.25, 0.25, 0.75, 0.75])


def ordered(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] with each pair of corners in order."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)


def _each(loss: str, boxes: Tensor, target: Tensor) -> Tensor:
    """``[B]``."""
    if loss in _OVERLAPS:
        overlap: Tensor = _OVERLAPS[loss](ordered(boxes), target, reduction="none")
        return overlap
    return _ERRORS[loss](boxes, target).mean(1)


_OVERLAPS: dict[str, Any] = {
    "giou": ops.generalized_box_iou_loss,
    "diou": ops.distance_box_iou_loss,
    "ciou": ops.complete_box_iou_loss,
}
_ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": partial(F.mse_loss, reduction="none"),
    "l1": partial(F.l1_loss, reduction="none"),
    "smooth-l1": partial(F.smooth_l1_loss, reduction="none", beta=0.1),
}


class BoxError(Metric):
    """``l2``: mean squared error of the coordinates in squared pixels; ``iou``: mean overlap."""

    full_state_update = False
    scale: Tensor
    squares: Tensor
    overlaps: Tensor
    total: Tensor

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = image_size
        self.register_buffer("scale", torch.tensor([width, height] * 2).float(), persistent=False)
        for name in ("squares", "overlaps", "total"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, boxes: Tensor, target: Tensor, present: Tensor) -> None:
        """Add one batch: corners [B, 4] in units of the picture's sides."""
        squares = ((boxes - target) * self.scale).square().mean(1)
        self.squares += labelled_sum(squares, present)
        self.overlaps += labelled_sum(_iou(ordered(boxes), target), present)
        self.total += present.sum()

    def compute(self) -> dict[str, Tensor]:
        """NaN where no box is labelled."""
        return {"l2": self.squares / self.total, "iou": self.overlaps / self.total}


def _iou(boxes: Tensor, others: Tensor) -> Tensor:
    """``[B]``: overlap of each box with the other at its place."""
    low = torch.maximum(boxes[:, :2], others[:, :2])
    high = torch.minimum(boxes[:, 2:], others[:, 2:])
    both = (high - low).clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1)
    return both / (areas - both).clamp(min=1e-12)
