"""Classification of the whole picture."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from mtlkit import DatasetSpec, Decoded, Task
from mtlkit_tasks._drawing import label
from mtlkit_tasks._sums import labelled_elements, labelled_sum


class Classification(Task):
    """Which class a picture belongs to, by cross-entropy.

    Args:
        target: name of the class in the dataset; by default the one called like the task, or cls.
        label_smoothing: in [0, 1).

    Raises:
        ValueError: the dataset has no such class, or ``label_smoothing`` is out of range.
    """

    kind = "class"
    label = "cls"
    output = "vector"
    default_head = "linear"
    metric_names = ("accuracy",)
    primary = "accuracy"

    def __init__(
        self,
        id: str,
        spec: DatasetSpec,
        image_size: tuple[int, int],
        /,
        *,
        target: str | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(id, spec, image_size, target=target)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), but is {label_smoothing}")
        self.classes = self.target_spec(spec).classes
        self.out_channels = len(self.classes)
        self.label_smoothing = label_smoothing

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Summed over labelled samples."""
        each = F.cross_entropy(
            prediction, target, reduction="none", label_smoothing=self.label_smoothing
        )
        return labelled_sum(each, present), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Labelled samples."""
        return labelled_elements(target, present)

    def metric(self) -> Any:
        """The share of right answers."""
        return Accuracy()

    def update(self, metric: Any, prediction: Tensor, target: Tensor, present: Tensor) -> None:
        """Count right answers; nothing is read back from the device."""
        metric.update((prediction.max(1).indices == target) & present, present)

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``class`` its name, ``index`` its number, ``probability``."""
        probability, index = prediction.softmax(0).max(0)
        return self._described(int(index), float(probability))

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """The same of the truth, with probability 1."""
        return self._described(int(target), 1.0)

    def _described(self, index: int, probability: float) -> Decoded:
        return {"class": self.classes[index], "index": index, "probability": probability}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The picture with the class's name, and its probability unless it is certain."""
        text = str(decoded["class"])
        if decoded["probability"] < 1:
            text += f" {decoded['probability']:.0%}"
        return label(image, text, decoded["index"])


class Accuracy(Metric):
    """The share of right answers among the labelled samples; NaN where there is none."""

    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "total"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, right: Tensor, present: Tensor) -> None:
        """Count."""
        self.right += right.sum()
        self.total += present.sum()

    def compute(self) -> dict[str, Tensor]:
        """``accuracy``."""
        return {"accuracy": self.right.double() / self.total}
