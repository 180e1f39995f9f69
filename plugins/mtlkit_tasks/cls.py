"""Classification of the whole image."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlkit import DatasetSpec, Decoded, Table, Task
from mtlkit_tasks._draw import label as write
from mtlkit_tasks._masked import spread, widen
from mtlkit_tasks._metric import Confusion, SampleMean

_MOST_COUNTED = 200
"""Classes up to which is counted what each was taken for: the square of them is kept."""

_NAMED = 5  # of the most probable classes


class Classification(Task):
    """The class of the image, by cross-entropy.

    Args:
        target: the label to learn, of kind ``class``; by default the one called like the task, else
            ``cls``.
        label_smoothing: share of the truth spread over all classes, in [0, 1).

    Raises:
        ValueError: the dataset has no such label, or fewer than 2 classes of it.
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
        self.classes = self.target_spec(spec).classes
        self.out_channels = len(self.classes)
        if self.out_channels < 2:
            raise ValueError(
                f"task '{id}' needs at least 2 classes, but label '{self.target}' has "
                f"{self.out_channels}"
            )
        self.label_smoothing = label_smoothing
        rows = [name for name, t in spec.targets.items() if t.kind == "class"]
        self._row = rows.index(str(self.target))

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The sum over labelled images and their number."""
        logits = torch.where(spread(present, prediction), widen(prediction), 0)
        total = F.cross_entropy(
            logits,
            torch.where(present, target, -100),
            ignore_index=-100,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return total, self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        """Number of labelled images."""
        return present.sum().float()

    def metric(self) -> Confusion | SampleMean:
        """The share of images that are right."""
        if self.out_channels > _MOST_COUNTED:
            return SampleMean(self.metric_names)
        return Confusion(self.out_channels, self.metric_names)

    def update(
        self, metric: Confusion | SampleMean, prediction: Tensor, target: Tensor, present: Tensor
    ) -> None:
        """Feed one batch."""
        answer = prediction.max(1).indices
        if isinstance(metric, Confusion):
            metric.update(answer, target, present)
        else:
            metric.update([(answer == target).float()], present)

    def tables(self, metric: Confusion | SampleMean) -> dict[str, Table]:
        """Which classes images were taken for, and how well each class is found."""
        if isinstance(metric, SampleMean):
            return {}
        return metric.tables(self.classes, ("precision", "recall"))

    def decode(self, prediction: Tensor, image: Tensor) -> Decoded:
        """``class``: its name, ``index``, ``probability``, and the ``probabilities`` of a few."""
        ordered = prediction.detach().float().softmax(0).sort(descending=True, stable=True)
        best = list(zip(ordered.indices.tolist(), ordered.values.tolist(), strict=True))[:_NAMED]
        return {
            **self._named(best[0][0]),
            "probability": best[0][1],
            "probabilities": {self.classes[index]: value for index, value in best},
        }

    def meaning(self) -> str:
        """Logits."""
        return "a logit per class; the largest is the class, their softmax the probabilities"

    def decode_target(self, target: Tensor, image: Tensor) -> Decoded:
        """``class``: its name, and ``index``."""
        return self._named(int(target))

    def _named(self, index: int) -> Decoded:
        return {"class": self.classes[index], "index": index}

    def draw(self, image: Tensor, decoded: Decoded) -> Tensor:
        """The name and probability, a line lower for each label of the dataset before this one."""
        text = str(decoded["class"])
        if "probability" in decoded:
            text = f"{text} {decoded['probability']:.0%}"
        return write(image, text, self._row)
