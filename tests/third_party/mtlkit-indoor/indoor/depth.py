"""Depth, from maps in metres."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanSquaredError, MetricCollection

from mtlkit import DatasetSpec, Decoded, Task


class Depth(Task):
    """Metres between the camera and what every pixel shows; a pixel of 0 was not measured.

    Args:
        target: the label to learn, of kind ``map``; by default the one called like the task, else
            ``depth``.
        far: metres; what is farther away is left out, and drawn white.

    Raises:
        ValueError: ``far`` is not above 0.
    """

    kind = "map"
    label = "depth"
    output = "map"
    default_head = "metres"
    metric_names = ("rmse",)
    primary = "rmse"
    higher_is_better = False

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        target: str | None = None,
        far: float = 10.0,
    ) -> None:
        super().__init__(id, spec, image_size, target=target)
        self.out_channels = self.target_spec(spec).channels
        if far <= 0:
            raise ValueError(f"far must be above 0, but got {far}")
        self.far = far

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        error = torch.where(self._measured(target, present), prediction - target, 0).abs()
        return error.sum(), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        return self._measured(target, present).sum().float()

    def _measured(self, target: Tensor, present: Tensor) -> Tensor:
        return (target > 0) & (target <= self.far) & present[:, None, None, None]

    def metric(self) -> MetricCollection:
        return MetricCollection({"rmse": MeanSquaredError(squared=False)})

    def update(
        self, metric: MetricCollection, prediction: Tensor, target: Tensor, present: Tensor
    ) -> None:
        measured = self._measured(target, present)
        if measured.any():
            metric.update(prediction[measured], target[measured])

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        metres = F.interpolate(prediction[None].float(), image.shape[-2:], mode="bilinear")[0, 0]
        grey = metres.div(self.far).clamp(0, 1).mul(255).byte().cpu()
        return {"metres": grey, "nearest": metres.min().item()}

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        return self.decode(target, image)

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        return decoded["metres"].expand(3, -1, -1)
