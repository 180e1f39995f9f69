"""Edges of the image."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, Decoded, Task
from mtlkit_tasks._canny import canny
from mtlkit_tasks._image import picture, resized
from mtlkit_tasks._masked import choose, elements, elementwise_sum, spread, widen
from mtlkit_tasks._metric import Confusion


class Edge(Task):
    """Canny's edges of the clean image.

    Args:
        low: gradient above which a pixel continues an edge; a step from black to white has 2.6.
        high: gradient above which a pixel begins an edge.
        reach: how many pixels an edge is followed from where it began.
        loss: ``l1`` between prediction and edge map, as in the study; with ``bce`` (binary
            cross-entropy) the raw prediction is a logit.

    Raises:
        ValueError: not 0 < ``low`` <= ``high``, or ``reach`` is negative.
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
        reach: int = 32,
        loss: Literal["l1", "bce"] = "l1",
    ) -> None:
        super().__init__(id, spec, image_size)
        if not 0 < low <= high:
            raise ValueError(f"thresholds must be 0 < low <= high, but got {low} and {high}")
        if reach < 0:
            raise ValueError(f"reach must not be negative, but got {reach}")
        self.low, self.high, self.reach = low, high, reach
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": _absolute, "bce": _bce}
        self._loss = choose("loss", loss, losses)
        self._is_logit = loss == "bce"

    def make_target(self, images: Tensor) -> Tensor:
        """1 on edges, else 0."""
        edges = canny(images, low=self.low, high=self.high, reach=self.reach)
        return edges.to(images.dtype)

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over pixels and their number."""
        total = elementwise_sum(self._loss, prediction, target, present)
        return total, self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Number of pixels."""
        return elements(target.shape, present)

    def metric(self) -> Confusion:
        """Of the edge pixels of a whole split."""
        return Confusion(2, self.metric_names)

    def update(
        self, metric: Confusion, prediction: Tensor, target: Tensor, present: Tensor
    ) -> None:
        """Feed one batch; a pixel is an edge from one half on."""
        predicted = (self._strength(prediction) >= 0.5).long()
        metric.update(predicted, target, spread(present, target).expand_as(target))

    def _strength(self, prediction: Tensor) -> Tensor:
        raw = widen(prediction)
        return raw.sigmoid() if self._is_logit else raw.clamp(0, 1)

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``edges``: bright where an edge is."""
        return {"edges": picture(resized(self._strength(prediction.detach()), image))}

    def meaning(self) -> str:
        """Strengths, or logits of them."""
        how = "its sigmoid is" if self._is_logit else "clipped to [0, 1] it is"
        return f"one number per pixel; {how} the strength of an edge, which is one from 0.5 on"

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """``edges``: bright where an edge is."""
        return {"edges": picture(resized(target.float(), image))}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The edges themselves."""
        edges: Tensor = decoded["edges"]
        return edges


def _absolute(prediction: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(prediction, target, reduction="none")


def _bce(prediction: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
