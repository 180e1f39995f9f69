"""The box around one object."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, Decoded, Task
from mtlkit_tasks._draw import rectangle
from mtlkit_tasks._masked import choose, spread, widen
from mtlkit_tasks._metric import SampleMean

_START = (0.25, 0.25, 0.75, 0.75)
_EPS = 1e-7
"""Torchvision's, in its losses over boxes."""


class BBox(Task):
    """One axis-parallel box, as x1, y1, x2, y2 in fractions of the image's width and height.

    The raw prediction is added to the centred box of half the image's size. It is neither clipped
    nor ordered until it is decoded; the losses over areas order its corners themselves.

    Args:
        target: the label to learn, of kind ``box``; by default the one called like the task, else
            ``bbox``.
        loss: over the four numbers, or over the boxes (``giou``, ``diou``).
        beta: error at which ``smooth-l1`` turns from quadratic to linear, as a fraction of the
            image's side.

    Raises:
        ValueError: the dataset has no such label, or ``beta`` is not positive.
    """

    kind = "box"
    label = "bbox"
    output = "vector"
    default_head = "spatial"
    metric_names = ("l2", "iou")
    primary = "iou"
    lower_is_better = ("l2",)
    out_channels = 4

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        target: str | None = None,
        loss: Literal["mse", "l1", "smooth-l1", "giou", "diou"] = "smooth-l1",
        beta: float = 0.1,
    ) -> None:
        super().__init__(id, spec, image_size, target=target)
        if beta <= 0:
            raise ValueError(f"beta must be positive, but got {beta}")
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "mse": partial(F.mse_loss, reduction="none"),
            "l1": partial(F.l1_loss, reduction="none"),
            "smooth-l1": partial(F.smooth_l1_loss, reduction="none", beta=beta),
            "giou": _giou_loss,
            "diou": _diou_loss,
        }
        self._loss = choose("loss", loss, losses)
        self._per_box = 1 if loss in ("giou", "diou") else 4

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over labelled numbers, or over labelled boxes, and their number."""
        mask = spread(present, prediction)
        box = torch.where(mask, self.box(prediction), 0.5)
        values = self._loss(box, torch.where(mask, target.to(box.dtype), 0.5))
        return torch.where(spread(present, values), values, 0).sum(), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Number of labelled numbers, or of labelled boxes."""
        return present.sum().float() * self._per_box

    def box(self, prediction: Tensor) -> Tensor:
        """Corners ``[..., 4]`` of a raw prediction, unclipped and in any order."""
        raw = widen(prediction)
        return raw + raw.new_tensor(_START)

    def metric(self) -> SampleMean:
        """Means over boxes."""
        return SampleMean(self.metric_names)

    def update(
        self, metric: SampleMean, prediction: Tensor, target: Tensor, present: Tensor
    ) -> None:
        """Feed one batch.

        ``l2`` is of the four numbers as predicted, in squared pixels of the network's input;
        ``iou`` of the box as it is decoded.
        """
        box = self.box(prediction)
        height, width = self.image_size
        error = (box - target) * box.new_tensor((width, height, width, height))
        metric.update([error.square().mean(1), _iou(_tidy(box), target)], present)

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``box``: x1, y1, x2, y2 in pixels of the picture, ordered and clipped to it."""
        return _pixels(_tidy(self.box(prediction.detach())), image)

    def meaning(self) -> str:
        """An offset in fractions of the sides."""
        start = ", ".join(map(str, _START))
        return (
            f"x1, y1, x2, y2 in fractions of the picture's width and height after adding "
            f"({start}); order each pair of corners and clip to [0, 1]"
        )

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """``box``: x1, y1, x2, y2 in pixels of the picture."""
        return _pixels(target, image)

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The outline of the box."""
        return rectangle(image, decoded["box"])


def _ordered(box: Tensor) -> Tensor:
    first, second = box[..., :2], box[..., 2:]
    return torch.cat((torch.minimum(first, second), torch.maximum(first, second)), -1)


def _tidy(box: Tensor) -> Tensor:
    return _ordered(box).clamp(0, 1)


def _giou_loss(box: Tensor, target: Tensor) -> Tensor:
    """Of each pair of boxes ``[B, 4]``: ``[B]``; torchvision's waits for the device.

    Reference: Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, algorithm 1.
    """
    box = _ordered(box)
    shared, union = _areas(box, target)
    hull = _area(_hull(box, target))
    return 1 - shared / (union + _EPS) + (hull - union) / (hull + _EPS)


def _diou_loss(box: Tensor, target: Tensor) -> Tensor:
    """Of each pair of boxes ``[B, 4]``: ``[B]``; torchvision's waits for the device.

    Reference: Zheng et al., "Distance-IoU Loss", AAAI 2020, eq. 7.
    """
    box = _ordered(box)
    shared, union = _areas(box, target)
    apart = (box[:, :2] + box[:, 2:] - target[:, :2] - target[:, 2:]).square().sum(1) / 4
    return 1 - shared / (union + _EPS) + apart / (_hull(box, target).square().sum(1) + _EPS)


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """Of each pair of boxes ``[B, 4]``: ``[B]``; 0 where both are empty."""
    shared, union = _areas(first, second)
    return torch.where(union > 0, shared / union.clamp_min(1e-12), 0)


def _areas(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Of the intersection and the union of each pair."""
    corners = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    shared = _area((corners[1] - corners[0]).clamp_min(0))
    areas = [_area(box[:, 2:] - box[:, :2]) for box in (first, second)]
    return shared, areas[0] + areas[1] - shared


def _area(sides: Tensor) -> Tensor:
    """Width times height: unlike that of ``prod``, its gradient is simple."""
    return sides[:, 0] * sides[:, 1]


def _hull(first: Tensor, second: Tensor) -> Tensor:
    """Width and height ``[B, 2]`` of the smallest box around each pair."""
    low, high = (
        torch.minimum(first[:, :2], second[:, :2]),
        torch.maximum(first[:, 2:], second[:, 2:]),
    )
    return high - low


def _pixels(box: Tensor, image: Tensor) -> Decoded:
    height, width = image.shape[-2:]
    scale = box.new_tensor((width, height, width, height))
    return {"box": [round(value, 2) for value in (box * scale).tolist()]}
