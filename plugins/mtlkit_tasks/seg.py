"""Semantic segmentation."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from mtlkit import DatasetSpec, Decoded, Task
from mtlkit_tasks._drawing import tint


class Segmentation(Task):
    """Which class each pixel belongs to.

    Args:
        target: name of the mask in the dataset; by default the one called like the task, or seg.
        loss: ``ce`` cross-entropy, ``focal`` its focal form, ``dice`` and ``jaccard`` overlap. The
            last two do not decompose over pixels: they are averaged over samples.
        label_smoothing: of ``ce``, in [0, 1).

    Raises:
        ValueError: the dataset has no such mask, or ``label_smoothing`` is out of range.
    """

    kind = "mask"
    label = "seg"
    output = "map"
    default_head = "dense"
    metric_names = ("miou", "weighted_iou", "f1")
    primary = "miou"

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        target: str | None = None,
        loss: Literal["ce", "focal", "dice", "jaccard"] = "ce",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(id, spec, image_size, target=target)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), but is {label_smoothing}")
        mask = self.target_spec(spec)
        self.classes = mask.classes
        self.ignore_index = mask.ignore_index
        self.out_channels = len(mask.classes)
        self.label_smoothing = label_smoothing
        self.by_sample = loss in ("dice", "jaccard")
        self.criterion = None if loss == "ce" else _criterion(loss, mask.ignore_index)

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Summed over labelled pixels, or over labelled samples for dice and jaccard."""
        known = self._known(target, present)
        count = self.count(target, present)
        if self.criterion is None:
            total = F.cross_entropy(
                prediction,
                known,
                ignore_index=self.ignore_index,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
            return total, count
        if not self.by_sample:
            return self.criterion(prediction, known), count
        each = [self.criterion(p[None], t[None]) for p, t in zip(prediction, known, strict=True)]
        has = (known != self.ignore_index).flatten(1).any(1)
        return (torch.stack(each) * has).sum(), count

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Labelled pixels, or samples with any."""
        labelled = (target != self.ignore_index) & present[:, None, None]
        return (labelled.flatten(1).any(1) if self.by_sample else labelled).sum().float()

    def _known(self, target: Tensor, present: Tensor) -> Tensor:
        """int64 [B, H, W], ignored wherever there is no label."""
        return torch.where(present[:, None, None], target.long(), self.ignore_index)

    def metric(self) -> Any:
        """IoU and F1 from one confusion matrix."""
        return Confusion(self.out_channels, self.ignore_index)

    def update(self, metric: Any, prediction: Tensor, target: Tensor, present: Tensor) -> None:
        """Count the labelled pixels; nothing is read back from the device."""
        metric.update(prediction, self._known(target, present))

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``mask`` uint8 [H, W] of class indices, and the ``share`` of pixels of each class."""
        size = (image.shape[-2], image.shape[-1])
        scores = F.interpolate(prediction[None], size, mode="bilinear", align_corners=False)[0]
        return self._described(scores.max(0).indices.byte())

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """The same of the truth, with ``ignore_index`` where nothing is known."""
        size = (image.shape[-2], image.shape[-1])
        mask = F.interpolate(target[None, None].float(), size, mode="nearest")[0, 0]
        return self._described(mask.byte())

    def _described(self, mask: Tensor) -> Decoded:
        known = max(1, int((mask != self.ignore_index).sum()))
        share = {name: int((mask == i).sum()) / known for i, name in enumerate(self.classes)}
        return {"mask": mask, "share": share}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The picture with every class but the background in its colour."""
        shown = [i for i, name in enumerate(self.classes) if name != "background"]
        return tint(image, decoded["mask"], shown)


class Confusion(Metric):
    """Mean IoU, IoU weighted by the classes' frequency, and F1, from one confusion matrix.

    F1 is of the second class where there are two, as scikit-learn has it; else the mean over
    classes. Means are over the classes that occur, in truth or prediction.
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        zeros = torch.zeros(num_classes * num_classes + 1, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count pixels; the last entry takes those that are ignored."""
        guess = prediction.max(1).indices  # faster on the CPU than argmax
        cell = target * self.num_classes + guess
        cell = torch.where(target == self.ignore_index, len(self.matrix) - 1, cell).flatten()
        self.matrix.scatter_add_(0, cell, torch.ones_like(cell))

    def compute(self) -> dict[str, Tensor]:
        """``miou``, ``weighted_iou``, ``f1``; NaN where no pixel is labelled."""
        matrix = self.matrix[:-1].reshape(self.num_classes, -1).double()  # rows: truth
        hit, truth, guess = matrix.diag(), matrix.sum(1), matrix.sum(0)
        occurs = truth + guess > 0
        iou = (hit / (truth + guess - hit))[occurs]
        f1 = 2 * hit / (truth + guess)
        return {
            "miou": iou.mean(),
            "weighted_iou": (iou * truth[occurs]).sum() / truth.sum(),
            "f1": f1[1] if self.num_classes == 2 else f1[occurs].mean(),
        }


def _criterion(name: str, ignore_index: int) -> Any:
    from segmentation_models_pytorch import losses

    if name == "focal":
        return losses.FocalLoss("multiclass", ignore_index=ignore_index, reduction="sum")
    return (
        losses.DiceLoss("multiclass", ignore_index=ignore_index)
        if name == "dice"
        else (_JaccardLoss(ignore_index))
    )


class _JaccardLoss:
    """1 - IoU of the probabilities, over the labelled pixels; smp's own has no ignore_index."""

    def __init__(self, ignore_index: int) -> None:
        self.ignore_index = ignore_index

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        known = (target != self.ignore_index)[:, None]
        chosen = target.where(target != self.ignore_index, 0)
        truth = F.one_hot(chosen, prediction.shape[1]).movedim(-1, 1) * known
        guess = prediction.softmax(1) * known
        both = (truth * guess).sum((0, 2, 3))
        union = (truth + guess).sum((0, 2, 3)) - both
        occurs = truth.sum((0, 2, 3)) > 0
        return ((1 - both / union.clamp(min=1e-7)) * occurs).sum() / occurs.sum().clamp(min=1)
