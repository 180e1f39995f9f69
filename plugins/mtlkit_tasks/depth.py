"""Depth."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, Decoded, Task
from mtlkit_tasks._draw import heat
from mtlkit_tasks._image import resized
from mtlkit_tasks._masked import choose, spread, widen
from mtlkit_tasks._metric import PixelMean

_NEAR = 1.25  # a ratio below which a prediction is right
_FARTHEST = {"distance": 10.0, "inverse-distance": 0.5}


class Depth(Task):
    """How far away every pixel is, or its inverse, in the label's unit.

    Losses and metrics are means over all measured pixels: of a split, not of each image.
    ``abs_err`` is |p - t|, ``rel_err`` |p - t| / t, ``delta1`` the share of pixels where p / t and
    t / p are below 1.25.

    Args:
        target: the label to learn, of kind ``map``, of distances or their inverse; by default the
            one called like the task, else ``depth``.
        loss: ``l1`` or ``mse`` between prediction and truth; with ``log`` the raw prediction is the
            logarithm, and L1 is taken between logarithms.
        drawn_to: where the colours of pictures end, in the label's unit; by default 10, or 0.5 for
            inverse depth.

    Raises:
        ValueError: the dataset has no such label, it has several channels, or ``drawn_to`` is not
            above 0.

    Reference: Eigen et al., "Depth Map Prediction from a Single Image using a Multi-Scale Deep
        Network", NeurIPS 2014, for the metrics.
    """

    kind = "map"
    label = "depth"
    quantities = ("distance", "inverse-distance")
    output = "map"
    default_head = "dense"
    metric_names = ("abs_err", "rel_err", "rmse", "delta1")
    primary = "abs_err"
    higher_is_better = False
    lower_is_better = ("rel_err", "rmse")
    out_channels = 1

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        target: str | None = None,
        loss: Literal["l1", "mse", "log"] = "l1",
        drawn_to: float | None = None,
    ) -> None:
        super().__init__(id, spec, image_size, target=target)
        label = self.target_spec(spec)
        if label.channels != 1:
            raise ValueError(
                f"task '{id}' needs a map of 1 channel, but '{self.target}' has {label.channels}"
            )
        if drawn_to is not None and drawn_to <= 0:
            raise ValueError(f"drawn_to must be above 0, but got {drawn_to}")
        self.drawn_to = drawn_to or _FARTHEST[label.quantity]
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "l1": _absolute,
            "mse": _squared,
            "log": lambda raw, target: _absolute(raw, target.log()),
        }
        self._loss = choose("loss", loss, losses)
        self._is_log = loss == "log"

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over measured pixels and their number."""
        measured = _measured(target, present)
        found = torch.where(measured, widen(prediction), 0)
        truth = torch.where(measured, target.to(found.dtype), 1)
        total = torch.where(measured, self._loss(found, truth), 0).sum()
        return total, self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Number of measured pixels."""
        return _measured(target, present).sum().float()

    def metric(self) -> PixelMean:
        """Over all measured pixels of a split."""
        return PixelMean(self.metric_names, roots=["rmse"])

    def update(
        self, metric: PixelMean, prediction: Tensor, target: Tensor, present: Tensor
    ) -> None:
        """Feed one batch."""
        measured = _measured(target, present)
        found, truth = self._depth(prediction), torch.where(measured, target, 1)
        error = found - truth
        right = (found < _NEAR * truth) & (truth < _NEAR * found)
        relative = error.abs() / truth
        metric.update([error.abs(), relative, error.square(), right.to(error.dtype)], measured)

    def _depth(self, prediction: Tensor) -> Tensor:
        raw = widen(prediction)
        return raw.exp() if self._is_log else raw

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``depth``: float32 [H, W] in the label's unit, and its ``least`` and ``most``."""
        return _decoded(self._depth(resized(prediction.detach().float(), image)[0]).cpu())

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """The same; NaN where not measured."""
        depth = F.interpolate(target[None].float(), image.shape[-2:], mode="nearest-exact")[0, 0]
        return _decoded(torch.where(depth > 0, depth, torch.nan).cpu())

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """Colours up to ``drawn_to``, hatched where not measured."""
        return heat(decoded["depth"], self.drawn_to)


def _measured(target: Tensor, present: Tensor) -> Tensor:
    """Not 0, and not NaN."""
    return (target > 0) & spread(present, target)


def _decoded(depth: Tensor) -> Decoded:
    known = depth[~depth.isnan()]
    least, most = known.aminmax() if len(known) else (None, None)
    numbers = {"least": least, "most": most}
    return {"depth": depth, **{k: v if v is None else float(v) for k, v in numbers.items()}}


def _absolute(prediction: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(prediction, target, reduction="none")


def _squared(prediction: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(prediction, target, reduction="none")
