"""Task: one thing the network learns."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from mtlkit.data import DatasetSpec, Kind, Quantity, TargetSpec
from mtlkit.head import Output

Decoded = dict[str, Any]


class Table(NamedTuple):
    """Numbers with a name for each row and column, for the report of a run.

    One whose rows and columns have the same names is shown as a confusion matrix: how often each
    row's class was taken for each column's.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: list[list[float]]


class Task(ABC):
    """One thing the network learns: its target, loss, metrics, decoding and drawing.

    The target is a label of the dataset (``kind`` is set), or made from the clean image on the
    device, a batch at a time (``kind`` is None: self-supervised, and :meth:`make_target` is
    written).

    Args:
        id: the name of this task in this run.
        spec: what the dataset offers.
        image_size: height and width of the images the network sees, in pixels.
        target: the label to learn. By default the label called like the task's id if there is one
            of the right kind, else the task type's usual label.

    Raises:
        ValueError: the dataset has no such label, or one of another kind.
    """

    kind: ClassVar[Kind | None] = None
    """Kind of label it learns; None when the target is made from the image."""
    label: ClassVar[str] = ""
    """The usual name of that label in a dataset."""
    quantities: ClassVar[tuple[Quantity, ...]] = ()
    """Of a ``map``, what it may measure; empty for anything."""
    output: ClassVar[Output]
    """Whether it predicts a ``map`` or a ``vector``; the head must do the same."""
    default_head: ClassVar[str]
    """Name of the head it gets unless the user chooses another."""
    metric_names: ClassVar[tuple[str, ...]]
    """Names of what its metric computes."""
    primary: ClassVar[str]
    """Which of its metrics stands for it when the best checkpoint is chosen."""
    higher_is_better: ClassVar[bool] = True
    """Of the primary metric."""
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    """Names of other metrics where lower is better."""
    view_channels: ClassVar[int | None] = None
    """Channels of what :meth:`view` returns, for a task that alters the image; else None."""

    out_channels: int
    """Channels of the raw prediction, set by the constructor."""
    classes: tuple[str, ...] = ()
    """Names of the classes it tells apart, in the order of their indices: how a mask is read."""

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        target: str | None = None,
    ) -> None:
        self.id = id
        self.image_size = image_size
        self.target = self._find_target(spec, target) if self.kind else None

    def _find_target(self, spec: DatasetSpec, target: str | None) -> str:
        fitting = [
            name
            for name, t in spec.targets.items()
            if t.kind == self.kind and (not self.quantities or t.quantity in self.quantities)
        ]
        if target is None:
            target = self.id if self.id in fitting else self.label
        if target not in fitting:
            known = spec.targets.get(target)
            has = "absent" if known is None else f"a {known.kind}"
            if known and known.kind == "map":
                has = f"a {known.quantity} map"
            kind = " or ".join(f"{word} {self.kind}" for word in self.quantities)
            raise ValueError(
                f"task '{self.id}' learns a label of kind '{kind or self.kind}' called '{target}', "
                f"which is {has} in this dataset; of that kind it has: "
                f"{', '.join(fitting) or 'none'}"
            )
        return target

    def at(self, image_size: tuple[int, int]) -> Self:
        """This task for images of another size (height, width), in whose pixels it measures."""
        other = copy(self)
        other.image_size = image_size
        return other

    def target_spec(self, spec: DatasetSpec) -> TargetSpec:
        """The description of the label this task learns."""
        assert self.target is not None
        return spec.targets[self.target]

    def view(self, images: Tensor, seeds: Tensor | None) -> Tensor:
        """What the network sees instead of the clean images, for a task that alters them.

        Args:
            images: clean, ``[B, 3, H, W]`` in [0, 1].
            seeds: ``[B]`` int64 on the CPU; random numbers for sample i come from ``seeds[i]``
                alone. None at prediction: nothing random is added.

        Returns:
            ``[B, view_channels, H, W]`` in [0, 1].
        """
        return images

    def make_target(self, images: Tensor) -> Tensor:
        """The target of a self-supervised task.

        Args:
            images: clean, after augmentation, ``[B, 3, H, W]`` in [0, 1], on the device.
        """
        raise NotImplementedError(f"{type(self).__name__} declares no label and makes no target")

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The loss as a sum and the number of labelled elements it was summed over.

        Only these can be averaged exactly over processes and micro-batches. The sum is 0 with a
        zero gradient, and the number 0, when nothing is labelled.

        Args:
            prediction: raw, float32, ``[B, out_channels, H, W]`` or ``[B, out_channels]``.
            target: ``[B, ...]``; the values of samples without a label are arbitrary but finite.
            present: ``[B]`` bool, which samples have a label.

        Returns:
            Two scalars, the number without a gradient.
        """

    @abstractmethod
    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """The number that :meth:`loss` returns, from the targets alone: scalar float32."""

    @abstractmethod
    def metric(self) -> Any:
        """A new ``torchmetrics.Metric`` (or collection) whose ``compute()`` returns a dict."""

    def update(self, metric: Any, prediction: Tensor, target: Tensor, present: Tensor) -> None:
        """Feed one batch into what :meth:`metric` made."""
        if bool(present.any()):
            metric.update(prediction[present], target[present])

    def tables(self, metric: Any) -> Mapping[str, Table]:
        """What was counted besides numbers, by title: by default nothing.

        Args:
            metric: after its ``compute()``. Only inside of that are a metric's states those of all
                processes, so that is where it keeps what is needed here.
        """
        return {}

    def better(self, metric: str) -> int:
        """1 where higher is better, -1 where lower is, as for the loss."""
        if metric == self.primary:
            return 1 if self.higher_is_better else -1
        return -1 if metric in (*self.lower_is_better, "loss") else 1

    @abstractmethod
    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """One raw prediction in a user's terms, in the pixels of ``image``.

        Args:
            prediction: of one sample, ``[out_channels, h, w]`` or ``[out_channels]``.
            image: uint8 ``[3, H, W]``, the original picture; its size may differ.

        Returns:
            Numbers, strings, lists and mappings of them for JSON; uint8 tensors ``[H, W]`` (class
            indices) or ``[3, H, W]`` (RGB) for picture files; a float32 tensor ``[H, W]`` or
            ``[C, H, W]``, for a NumPy file beside the picture that :meth:`draw` makes of it.
        """

    def meaning(self) -> str:
        """What the numbers of a raw prediction are and how :meth:`decode` reads them, in a
        sentence or two for programs without mtlkit; exported files hold it."""
        return ""

    @abstractmethod
    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """The truth, in the same terms as :meth:`decode`."""

    @abstractmethod
    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """``image`` (uint8 [3, H, W]) with what was decoded drawn on it, or the decoded picture."""


def seeded_normal(seeds: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal numbers ``[len(seeds), *shape]``; sample i depends on ``seeds[i]`` alone."""
    draws = [
        torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()
    ]
    return torch.stack(draws).to(device, non_blocking=True)
