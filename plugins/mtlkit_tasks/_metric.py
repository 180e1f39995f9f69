"""Metrics with sum states: exact over processes, and no copy from device to host per batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mtlkit import Table

_BINS = 64  # per degree


class SampleMean(Metric):
    """Means over labelled samples of values computed per sample; NaN without any sample.

    Args:
        names: of the values.
    """

    full_state_update = False
    sums: Tensor
    count: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.add_state("sums", torch.zeros(len(self.names)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, values: Sequence[Tensor], present: Tensor) -> None:
        """Add a batch.

        Args:
            values: ``[B]`` for each name.
            present: ``[B]`` bool, which samples count.
        """
        self.sums = self.sums + torch.where(present, torch.stack(tuple(values)), 0).sum(1)
        self.count = self.count + present.sum()

    def compute(self) -> dict[str, Tensor]:
        """The means by name."""
        return dict(zip(self.names, self.sums / self.count, strict=True))


class PixelMean(Metric):
    """Means over the valid pixels of a whole split; NaN without any.

    Args:
        names: of the values.
        roots: those of them whose square is averaged, and whose root is taken at the end.
    """

    full_state_update = False
    sums: Tensor
    count: Tensor

    def __init__(self, names: Sequence[str], roots: Sequence[str] = ()) -> None:
        super().__init__()
        self.names, self.roots = tuple(names), tuple(roots)
        self.add_state("sums", torch.zeros(len(self.names)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Sequence[Tensor], valid: Tensor) -> None:
        """Add a batch.

        Args:
            values: for each name ``[B, ...]``, of a root its square; arbitrary where not ``valid``.
            valid: bool, which pixels count.
        """
        self.sums = self.sums + torch.stack([torch.where(valid, v, 0).sum() for v in values])
        self.count = self.count + valid.sum()

    def compute(self) -> dict[str, Tensor]:
        """The means by name."""
        means = dict(zip(self.names, self.sums / self.count, strict=True))
        return {name: mean.sqrt() if name in self.roots else mean for name, mean in means.items()}


class Angles(Metric):
    """Mean, median and small shares of the angles of a whole split; NaN without any.

    Angles are counted in bins of 1/64 degree: the median is exact to that, and the shares, whose
    limits are edges of bins, in full. A list of all angles would be gigabytes on every process.

    Args:
        limits: in degrees, multiples of 1/64.
    """

    full_state_update = False
    bins: Tensor
    total: Tensor

    def __init__(self, limits: Sequence[float]) -> None:
        super().__init__()
        self.limits = tuple(limits)
        zeros = torch.zeros(180 * _BINS + 1, dtype=torch.int64)
        self.add_state("bins", zeros, dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, angles: Tensor, valid: Tensor) -> None:
        """Add a batch.

        Args:
            angles: degrees ``[B, ...]`` from 0 to 180, arbitrary where not ``valid``.
            valid: bool, which of them count.
        """
        last = len(self.bins)
        place = (angles * _BINS).nan_to_num(last).clamp(0, last - 1).long()
        place = torch.where(valid, place, last).flatten(1)
        # one histogram per sample, see Confusion
        counts = place.new_zeros(len(place), last + 1)
        counts.scatter_add_(1, place, place.new_ones(()).expand_as(place))
        self.bins = self.bins + counts.sum(0)[:-1]
        self.total = self.total + torch.where(valid, angles, 0).sum()

    def compute(self) -> dict[str, Tensor]:
        """``mean``, ``median`` and, for each limit, ``within_<limit>``."""
        number = self.bins.sum()
        middle = torch.stack(((number - 1) // 2, number // 2))  # one angle twice, or two
        median = self._ranked(middle).mean()
        shares = {
            f"within_{limit:g}": self.bins[: round(limit * _BINS)].sum() / number
            for limit in self.limits
        }
        return {"mean": self.total / number, "median": median, **shares}

    def _ranked(self, ranks: Tensor) -> Tensor:
        """The angles in these places of their order, as if those of a bin were spread evenly."""
        upto = self.bins.cumsum(0)
        place = (upto <= ranks[:, None]).sum(1).clamp_max(len(self.bins) - 1)
        inside = self.bins[place]
        before = upto[place] - inside
        return (place + (ranks - before + 0.5) / inside) / _BINS


class Confusion(Metric):
    """Accuracy, intersection over union and F1 over a whole split; NaN without anything labelled.

    ``miou`` is the mean over the classes that occur in truth or prediction, ``weighted_iou``
    weighs them by their share of the truth. ``f1`` is that of class 1 of two classes, otherwise
    the mean over the classes that occur. ``pixel_accuracy`` is the share of pixels that are right.

    Args:
        num_classes: K.
        names: which of the four to compute.
    """

    full_state_update = False
    matrix: Tensor
    total: Tensor
    """The matrix of all processes, after ``compute()``."""

    def __init__(self, num_classes: int, names: Sequence[str]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.names = tuple(names)
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

    def update(self, predicted: Tensor, truth: Tensor, valid: Tensor) -> None:
        """Add a batch.

        Args:
            predicted: classes ``[B, H, W]`` or ``[B]`` int64.
            truth: classes, arbitrary where not ``valid``.
            valid: bool, which of them count.
        """
        k = self.num_classes
        cell = torch.where(valid, truth.long() * k + predicted, k * k)
        cell = cell.flatten(1) if cell.ndim > 1 else cell[None]
        # one histogram per sample: on a GPU, few cells for many pixels would queue up
        counts = cell.new_zeros(len(cell), k * k + 1)
        counts.scatter_add_(1, cell, cell.new_ones(()).expand_as(cell))
        self.matrix = self.matrix + counts.sum(0)[:-1].view(k, k)

    def compute(self) -> dict[str, Tensor]:
        """The chosen metrics by name."""
        self.total = self.matrix
        matrix, by_class = self.total.double(), self._by_class()
        truth, iou, f1 = matrix.sum(1), by_class["IoU"], by_class["F1"]
        values: dict[str, Any] = {
            "accuracy": (accuracy := matrix.trace() / matrix.sum()),
            "miou": iou.nanmean(),
            "weighted_iou": (iou.nan_to_num(0) * truth).sum() / truth.sum(),
            "f1": f1[1] if self.num_classes == 2 else f1.nanmean(),
            "pixel_accuracy": accuracy,
        }
        return {name: values[name].float() for name in self.names}

    def _by_class(self) -> dict[str, Tensor]:
        """[K] each; NaN for a class that does not occur."""
        matrix = self.total.double()
        hit, truth, answered = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        return {
            "IoU": hit / (truth + answered - hit),
            "F1": 2 * hit / (truth + answered),
            "precision": hit / answered,
            "recall": hit / truth,
            "share of truth": truth / truth.sum(),
        }

    def tables(self, classes: Sequence[str], columns: Sequence[str]) -> dict[str, Table]:
        """The matrix, and what it says of each class; after ``compute()``.

        Args:
            classes: names of the K classes.
            columns: what to say of them: IoU, F1, precision, recall.
        """
        columns, names, found = (*columns, "share of truth"), tuple(classes), self._by_class()
        by_class = torch.stack([found[column] for column in columns], 1)  # [K, columns]
        return {
            "confusion": Table(names, names, self.total.tolist()),
            "by class": Table(names, columns, by_class.tolist()),
        }
