"""Edge detection, self-supervised."""

from typing import Any, Literal

import torch
from kornia.filters import canny
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from mtlkit import DatasetSpec, Decoded, Task
from mtlkit_tasks._drawing import as_picture
from mtlkit_tasks._sums import labelled_elements, labelled_sum


class Edge(Task):
    """Canny edges of the clean picture. The raw prediction is the logit of an edge.

    Args:
        low: lower threshold of the gradient's magnitude, in (0, high).
        high: upper threshold, in (low, 1].
        loss: ``l1`` between probability and edge, as in the study, or ``bce``.

    Raises:
        ValueError: the thresholds are not 0 < low < high <= 1.
    """

    output = "map"
    default_head = "dense"
    metric_names = ("f1",)
    primary = "f1"
    out_channels = 1

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        low: float = 0.1,
        high: float = 0.2,
        loss: Literal["l1", "bce"] = "l1",
    ) -> None:
        super().__init__(id, spec, image_size)
        if not 0 < low < high <= 1:
            raise ValueError(f"thresholds must be 0 < low < high <= 1, but are {low} and {high}")
        self.low = low
        self.high = high
        self.criterion = loss

    @torch.no_grad()
    def make_target(self, images: Tensor) -> Tensor:
        """``[B, 1, H, W]``, 1 on an edge and 0 elsewhere."""
        edges: Tensor = canny(images, self.low, self.high)[1]
        return edges

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Summed over pixels."""
        if self.criterion == "l1":
            each = (prediction.sigmoid() - target).abs()
        else:
            each = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
        return labelled_sum(each, present), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Pixels."""
        return labelled_elements(target, present)

    def metric(self) -> Any:
        """F1 of the edge pixels."""
        return EdgeF1()

    def update(self, metric: Any, prediction: Tensor, target: Tensor, present: Tensor) -> None:
        """Count pixels where an edge is more likely than not."""
        metric.update(prediction > 0, target > 0.5, present)

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``image``: the probability of an edge as grey, uint8 [3, H, W]."""
        return {"image": as_picture(prediction.sigmoid(), image)}

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """The same of the truth."""
        return {"image": as_picture(target, image)}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The edges."""
        drawn: Tensor = decoded["image"]
        return drawn


class EdgeF1(Metric):
    """F1 over all pixels of all pictures; NaN where neither truth nor prediction has an edge."""

    full_state_update = False
    hit: Tensor
    either: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("hit", "either"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, guess: Tensor, truth: Tensor, present: Tensor) -> None:
        """Count: ``[B, 1, H, W]`` bool."""
        self.hit += labelled_sum((guess & truth).long(), present)
        self.either += labelled_sum(guess.long() + truth.long(), present)

    def compute(self) -> dict[str, Tensor]:
        """``f1``."""
        return {"f1": 2 * self.hit.double() / self.either}
