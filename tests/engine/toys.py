"""The smallest components that train: for tests of the engine alone."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchvision import tv_tensors

from mtlkit import (
    Backbone,
    Dataset,
    DatasetSpec,
    Features,
    FeatureSpec,
    Head,
    LossBalancer,
    Model,
    Sample,
    TargetSpec,
    Task,
)
from mtlkit.balancing import Balancing
from mtlkit.loader import Batches, Prepared
from mtlkit.sharing import find_sharing
from mtlkit.step import Step, StepResult

SIZE = (8, 8)


class ToyBackbone(Backbone):
    """One convolution that everyone shares, and a scale of each task's own."""

    multiple = 4
    recomputes = True

    def __init__(
        self,
        tasks: Sequence[str],
        dense: Sequence[str] = (),
        channels: int = 3,
        /,
        *,
        norm: bool = False,
    ) -> None:
        super().__init__(tasks, dense, channels)
        conv = nn.Conv2d(channels, 4, 3, stride=4, padding=1, bias=not norm)
        self.conv = nn.Sequential(conv, nn.BatchNorm2d(4)) if norm else conv
        self.scales = nn.ModuleDict({task: nn.Conv2d(4, 4, 1) for task in tasks})
        self.spec = FeatureSpec((4,), (4,))

    def encode(self, images: Tensor) -> Tensor:
        return torch.tanh(self.recompute(self.conv, images))

    def route(self, shared: Tensor, tasks: Sequence[str], /) -> dict[str, Features]:
        return {task: Features((self.recompute(self.scales[task], shared),)) for task in tasks}

    def own_modules(self, task: str, /) -> list[nn.Module]:
        return [self.scales[task]]


class ToyHead(Head):
    output = "vector"

    def __init__(self, spec: FeatureSpec, out_channels: int, /) -> None:
        super().__init__(spec, out_channels)
        self.linear = nn.Linear(spec.channels[-1], out_channels)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        return self.linear(features.levels[-1].mean((2, 3)))


class Regress(Task):
    """Squared error to a vector, averaged over labelled samples and elements."""

    kind = "vector"
    output = "vector"
    default_head = "toy"
    metric_names = ("error",)
    primary = "error"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, id: str, spec: DatasetSpec, size: tuple[int, int], /) -> None:
        super().__init__(id, spec, size)
        self.out_channels = self.target_spec(spec).channels

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        error = (prediction - target).square()
        kept = torch.where(present[:, None], error, torch.zeros_like(error))
        return kept.sum(), self.count(target, present)

    def count(self, target: Tensor, present: Tensor) -> Tensor:
        return present.sum().float() * self.out_channels

    def metric(self) -> Any:
        return MetricCollection({"error": MeanMetric()})

    def update(self, metric: Any, prediction: Tensor, target: Tensor, present: Tensor) -> None:
        if present.any():
            metric.update((prediction - target).square()[present])

    def decode(self, prediction: Tensor, image: Tensor) -> dict[str, Any]:
        return {"values": prediction.tolist()}

    def decode_target(self, target: Tensor, image: Tensor) -> dict[str, Any]:
        return {"values": target.tolist()}

    def draw(self, image: Tensor, decoded: dict[str, Any]) -> Tensor:
        return image


class ToySamples:
    """Random images; ``a`` and ``c`` are labelled everywhere, ``b`` where ``labelled`` says so."""

    def __init__(self, count: int, labelled: Sequence[bool]) -> None:
        self.count = count
        self.labelled = labelled

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Sample:
        if index >= self.count:
            raise IndexError(index)
        random = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, *SIZE), generator=random, dtype=torch.uint8)
        sample = {
            "image": tv_tensors.Image(image),
            "id": f"{index:03d}",
            "a": torch.randn(2, generator=random),
            "c": 3 * torch.randn(2, generator=random),
        }
        if self.labelled[index % len(self.labelled)]:
            sample["b"] = torch.randn(3, generator=random)
        return sample


class ToyData(Dataset):
    def __init__(self, *, count: int = 24, labelled: Sequence[bool] = (True,)) -> None:
        self.count = count
        self.labelled = labelled
        self.spec = DatasetSpec(
            {
                "a": TargetSpec("vector", channels=2),
                "b": TargetSpec("vector", channels=3),
                "c": TargetSpec("vector", channels=2),
            },
            {"train": count, "val": 7, "test": 5},
        )

    def split(self, name: str, /) -> ToySamples:
        return ToySamples(self.spec.sizes[name], self.labelled)


def toy_model(
    spec: DatasetSpec, ids: Sequence[str] = ("a", "b"), seed: int = 0, *, norm: bool = False
) -> Model:
    torch.manual_seed(seed)
    tasks = [Regress(id, spec, SIZE) for id in ids]
    backbone = ToyBackbone(tuple(ids), norm=norm)
    heads = {task.id: ToyHead(backbone.spec, task.out_channels) for task in tasks}
    return Model(tasks, backbone, heads, image_size=SIZE)


def train_steps(
    accelerator: Accelerator,
    balancer: LossBalancer,
    *,
    batch_size: int,
    accumulate: int = 1,
    steps: int = 5,
    labelled: Sequence[bool] = (True,),
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD,
    balancing: Mapping[str, Any] | None = None,
    norm: bool = False,
    recompute: bool = False,
    **options: Any,
) -> tuple[Model, list[StepResult]]:
    """Train the toy in float64 on the first batches of an epoch; returns it and what it did."""
    data = ToyData(labelled=labelled)
    model = toy_model(data.spec, balancer.tasks, norm=norm).double()
    if recompute:
        model.backbone.checkpoint_activations()
    parameters = [*model.parameters(), *balancer.parameters()]
    step = Step(
        accelerator,
        model,
        Balancing(balancer, **(balancing or {})),
        accelerator.prepare_optimizer(optimizer(parameters, lr=0.1)),
        find_sharing(model),
        accumulate=accumulate,
        **options,
    )
    batches = Batches(
        data.count, batch_size, train=True, seed=3,
        rank=accelerator.process_index, world=accelerator.num_processes,
    )  # fmt: skip
    prepared = Prepared(data.split("train"), data.spec.targets, SIZE)
    results = []
    loaded = (prepared.collate([prepared[key] for key in keys]) for keys in _forever(batches))
    for number in range(steps):
        window = [_double(model.prepare(next(loaded))) for _ in range(accumulate)]
        results.append(step(window, step=number, epoch=number // 2))
    return model, results


def _forever(batches: Batches) -> Any:
    while True:
        yield from batches
        batches.epoch += 1


def _double(batch: Any) -> Any:
    batch.inputs[:] = [images.double() for images in batch.inputs]
    batch.targets[:] = [target.double() for target in batch.targets]
    return batch
