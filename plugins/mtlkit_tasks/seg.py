"""Semantic segmentation."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, Decoded, Table, Task
from mtlkit_tasks._draw import tint
from mtlkit_tasks._image import resized
from mtlkit_tasks._masked import choose, spread, widen
from mtlkit_tasks._metric import Confusion

# of logits, target and valid pixels
Sum = Callable[[Tensor, Tensor, Tensor], Tensor]

_MOST_CLASSES = 255
_SURE = -100.0  # a logit whose probability is 0 in float32


class Segmentation(Task):
    """The class of every pixel.

    ``ce`` and ``focal`` are means over labelled pixels. ``dice``, ``jaccard`` and ``tversky`` are
    computed per image, over the classes in it, and averaged over the images that have a labelled
    pixel: so they too are exact over processes and micro-batches.

    Args:
        target: the label to learn, of kind ``mask``; by default the one called like the task, else
            ``seg``.
        loss: cross-entropy, or one of segmentation_models_pytorch's losses.
        label_smoothing: share of the truth spread over all classes, in [0, 1); ``ce`` only.
        gamma: how much ``focal`` neglects pixels that are already right; 0 does not.
        miss_weight: what ``tversky`` makes of a missed pixel, in [0, 1]; a false alarm gets the
            rest. 0.5 is ``dice``.

    Raises:
        ValueError: the dataset has no such label, or fewer than 2 or more than 255 classes of it.
    """

    kind = "mask"
    label = "seg"
    output = "map"
    default_head = "dense"
    metric_names = ("miou", "weighted_iou", "f1", "pixel_accuracy")
    primary = "miou"

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        target: str | None = None,
        loss: Literal["ce", "dice", "focal", "jaccard", "tversky"] = "ce",
        label_smoothing: float = 0.0,
        gamma: float = 2.0,
        miss_weight: float = 0.7,
    ) -> None:
        super().__init__(id, spec, image_size, target=target)
        label = self.target_spec(spec)
        self.classes, self.ignore_index = label.classes, label.ignore_index
        self.out_channels = len(self.classes)
        if not 2 <= self.out_channels <= _MOST_CLASSES:
            raise ValueError(
                f"task '{id}' needs a mask of 2 to {_MOST_CLASSES} classes, but label "
                f"'{self.target}' has {self.out_channels}"
            )
        losses: dict[str, Callable[[], Sum]] = {
            "ce": lambda: partial(_cross_entropy, label_smoothing),
            "focal": lambda: _focal(gamma),
            "dice": lambda: _overlap("DiceLoss"),
            "jaccard": lambda: _overlap("JaccardLoss"),
            "tversky": lambda: _overlap("TverskyLoss", alpha=1 - miss_weight, beta=miss_weight),
        }
        self._sum = choose("loss", loss, losses)()
        self._counts_pixels = loss in ("ce", "focal")

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over labelled pixels, or over labelled images, and their number."""
        valid = self._valid(target, present)
        logits = torch.where(valid[:, None], widen(prediction), 0)
        return self._sum(logits, target.long(), valid), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Number of labelled pixels, or of images that have one."""
        valid = self._valid(target, present)
        return (valid if self._counts_pixels else valid.flatten(1).any(1)).sum().float()

    def _valid(self, target: Tensor, present: Tensor) -> Tensor:
        return (target != self.ignore_index) & spread(present, target)

    def metric(self) -> Confusion:
        """Over all pixels of a split."""
        return Confusion(self.out_channels, self.metric_names)

    def update(
        self, metric: Confusion, prediction: Tensor, target: Tensor, present: Tensor
    ) -> None:
        """Feed one batch."""
        metric.update(prediction.max(1).indices, target, self._valid(target, present))

    def tables(self, metric: Confusion) -> dict[str, Table]:
        """Which classes pixels were taken for, and how well each class is found."""
        return metric.tables(self.classes, ("IoU", "F1"))

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``mask``: the class of every pixel of the picture."""
        logits = resized(prediction.detach().float(), image)
        return {"mask": logits.max(0).indices.byte().cpu()}

    def meaning(self) -> str:
        """Logits."""
        return "a logit per class and pixel; resize to the picture, then the largest is the class"

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """``mask``: the class of every pixel of the picture; 255 where it is not labelled."""
        mask = torch.where(target == self.ignore_index, 255, target.long()).float()
        mask = F.interpolate(mask[None, None], image.shape[-2:], mode="nearest-exact")
        return {"mask": mask[0, 0].byte().cpu()}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """A tint and a contour for each class but one called ``background``."""
        shown = [i for i, name in enumerate(self.classes) if name.lower() != "background"]
        return tint(image, decoded["mask"], shown)


def _smp_loss(name: str, mode: str, **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """One of smp's losses; smp takes seconds to import, which cross-entropy does not need."""
    from segmentation_models_pytorch import losses

    loss: Callable[[Tensor, Tensor], Tensor] = getattr(losses, name)(mode, **options)
    return loss


def _cross_entropy(smoothing: float, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return F.cross_entropy(
        logits,
        torch.where(valid, target, -100),
        ignore_index=-100,
        reduction="sum",
        label_smoothing=smoothing,
    )


def _focal(gamma: float) -> Sum:
    criterion = _smp_loss("FocalLoss", "multiclass", gamma=gamma, reduction="sum")

    def total(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        # what is not labelled is given as surely no class, and truly none: its loss is 0
        logits = torch.where(valid[:, None], logits, _SURE)
        return criterion(logits, torch.where(valid, target, -1))

    return total


def _overlap(name: str, **options: float) -> Sum:
    """The sum over images of smp's mean over classes, in one call.

    smp computes these losses over the whole batch, class by class. Here each class of each image
    is given as a class of its own, of a batch of one.
    """
    criterion = _smp_loss(name, "multilabel", from_logits=False, **options)

    def total(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        batch, classes = logits.shape[:2]
        truth = F.one_hot(torch.where(valid, target, 0), classes).movedim(-1, 1)
        truth = torch.where(valid[:, None], truth, 0).to(logits.dtype)
        probability = torch.where(valid[:, None], logits.softmax(1), 0)
        flat = (1, batch * classes, -1)
        return criterion(probability.reshape(flat), truth.reshape(flat)) * batch

    return total
