"""Surface normals."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, Decoded, Task
from mtlkit_tasks._draw import hatched
from mtlkit_tasks._image import picture, resized
from mtlkit_tasks._masked import widen
from mtlkit_tasks._metric import Angles

_LIMITS = (11.25, 22.5, 30.0)
_SHORTEST = 1e-4  # shorter predictions are not lengthened to 1: their gradients would explode


class Normals(Task):
    """Which way every pixel's surface faces, as a unit vector; the loss is 1 - cosine.

    Loss and metrics are over all measured pixels: of a split, not of each image. ``mean`` and
    ``median`` are angles in degrees between prediction and truth, the others the shares of pixels
    where the angle is below 11.25, 22.5 and 30 degrees.

    Args:
        target: the label to learn, of kind ``map``, of directions; by default the one called like
            the task, else ``normals``.

    Raises:
        ValueError: the dataset has no such label, or it has not 3 channels.

    Reference: Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019, eq. 6, for
        the loss; Eigen and Fergus, ICCV 2015, for the metrics.
    """

    kind = "map"
    label = "normals"
    quantities = ("direction",)
    output = "map"
    default_head = "dense"
    metric_names = ("mean", "median", *(f"within_{limit:g}" for limit in _LIMITS))
    primary = "mean"
    higher_is_better = False
    lower_is_better = ("median",)
    out_channels = 3

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        target: str | None = None,
    ) -> None:
        super().__init__(id, spec, image_size, target=target)
        if (channels := self.target_spec(spec).channels) != self.out_channels:
            raise ValueError(
                f"task '{id}' needs a map of 3 channels, but '{self.target}' has {channels}"
            )

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over measured pixels and their number."""
        measured = _measured(target, present)
        unit = _unit(torch.where(measured[:, None], widen(prediction), 1))
        cosine = (unit * torch.where(measured[:, None], target.to(unit.dtype), 0)).sum(1)
        return torch.where(measured, 1 - cosine, 0).sum(), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Number of measured pixels."""
        return _measured(target, present).sum().float()

    def metric(self) -> Angles:
        """Over all measured pixels of a split."""
        return Angles(_LIMITS)

    def update(self, metric: Angles, prediction: Tensor, target: Tensor, present: Tensor) -> None:
        """Feed one batch."""
        metric.update(_angle(widen(prediction), target), _measured(target, present))

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``normals``: unit vectors, float32 [3, H, W]."""
        return {"normals": _unit(resized(prediction.detach().float(), image)[None])[0].cpu()}

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """The same; NaN where not measured."""
        found = F.interpolate(target[None].float(), image.shape[-2:], mode="nearest-exact")[0]
        return {"normals": torch.where(found.square().sum(0) > 0, found, torch.nan).cpu()}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """x, y and z from -1 to 1 as red, green and blue; hatched where not measured."""
        normals: Tensor = decoded["normals"]
        return hatched(picture((normals.nan_to_num(0) + 1) / 2), normals.isnan().any(0))


def _measured(target: Tensor, present: Tensor) -> Tensor:
    """Not 0, and not NaN: ``[B, H, W]``."""
    return (target.square().sum(1) > 0) & present[:, None, None]


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=1, eps=_SHORTEST)


def _angle(prediction: Tensor, target: Tensor) -> Tensor:
    """Degrees ``[B, H, W]``; 90 from a prediction of 0.

    The arccosine of the product of unit vectors has in float32 an error of 0.02 degrees near 0.
    """
    across = torch.linalg.cross(prediction, target.to(prediction.dtype), dim=1)
    along = (prediction * target).sum(1)
    nowhere = (prediction == 0).all(1)
    radians = torch.atan2(across.square().sum(1).sqrt(), along)
    return torch.where(nowhere, 90, radians.rad2deg())
