"""Model: one backbone and a head per task, with everything needed to predict on a picture."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from mtlkit import hub
from mtlkit.backbone import Backbone
from mtlkit.head import Head
from mtlkit.predictor import Predictor
from mtlkit.task import Task

Views = Literal["shared", "own"]


def view_channels(tasks: Iterable[Task], views: Views) -> int:
    """Channels of the images the network sees, given what the tasks make of them."""
    tasks = list(tasks)
    altered = [t.view_channels for t in tasks if t.view_channels]
    if views == "own" and len(altered) < len(tasks):
        return 3
    return (min if views == "shared" else max)(altered, default=3)


@dataclass(frozen=True)
class TaskBatch:
    """A batch on the device, as the network and its tasks see it.

    Args:
        inputs: one ``[B, C, H, W]`` in [0, 1] for each forward pass.
        targets: one ``[B, ...]`` for each task, in the tasks' order.
        present: ``[B]`` bool for each task: which samples have a label.
        labelled: for each task whether any sample has one, known without asking the device.
        ids: of the samples.
    """

    inputs: list[Tensor]
    targets: list[Tensor]
    present: list[Tensor]
    labelled: list[bool]
    ids: Sequence[str] = ()


class Model(nn.Module, Predictor):
    """One network for several tasks.

    Args:
        tasks: in their fixed order.
        backbone: built for these tasks.
        heads: by task id.
        image_size: height and width the network sees, in pixels.
        views: ``shared`` shows one altered image to all tasks; ``own`` gives every task that
            alters the image a forward pass of its own, and the others the clean image.

    Raises:
        ValueError: the backbone cannot take images of this size; the message has sizes that work.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        tasks: Sequence[Task],
        backbone: Backbone,
        heads: Mapping[str, Head],
        *,
        image_size: tuple[int, int],
        views: Views = "shared",
    ) -> None:
        super().__init__()
        backbone.check_size(*image_size)
        self.tasks = {task.id: task for task in tasks}
        self.image_size = image_size
        self.views = views
        self.backbone = backbone
        self.heads = nn.ModuleDict({task.id: heads[task.id] for task in tasks})
        self.frozen_bn = False
        self.config: dict[str, Any] = {}
        """What it is made of, as in ``config.json``; whoever builds it by names fills it in."""
        channels = backbone.in_channels
        for name, values in (("mean", backbone.mean), ("std", backbone.std)):
            value = torch.tensor(values)
            if channels != len(values):
                value = value.mean().expand(channels)
            self.register_buffer(name, value.reshape(-1, 1, 1).clone(), persistent=False)
        self.passes = self._passes()

    def _passes(self) -> list[tuple[str, ...]]:
        """Ids of the tasks that each forward pass of the backbone serves."""
        if self.views == "shared":
            return [tuple(self.tasks)]
        clean = tuple(id for id, task in self.tasks.items() if task.view_channels is None)
        altered: list[tuple[str, ...]] = [(id,) for id in self.tasks if id not in clean]
        return [clean, *altered] if clean else altered

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.mean.device

    def inputs(self, images: Tensor, seeds: Tensor | None = None) -> list[Tensor]:
        """What each forward pass sees.

        Args:
            images: clean, ``[B, 3, H, W]`` in [0, 1], on the device.
            seeds: ``[B]``, of the noise; None adds none.

        Returns:
            One ``[B, C, H, W]`` in [0, 1] for each entry of ``passes``.
        """
        return [self._view(images, tasks, seeds) for tasks in self.passes]

    def _view(self, images: Tensor, tasks: tuple[str, ...], seeds: Tensor | None) -> Tensor:
        altering = [self.tasks[id] for id in tasks if self.tasks[id].view_channels]
        for task in sorted(altering, key=lambda task: -(task.view_channels or 0)):
            images = task.view(images.expand(-1, 3, -1, -1), seeds)
        return images.expand(-1, self.backbone.in_channels, -1, -1)

    def prepare(self, batch: Mapping[str, Any], *, channels_last: bool = False) -> TaskBatch:
        """A loader's batch on the device, with the views and targets that the tasks make."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        images = as_floats(batch["image"].to(self.device, non_blocking=True, memory_format=layout))
        targets, present, labelled = [], [], []
        for task in self.tasks.values():
            if task.target is None:
                targets.append(task.make_target(images))
                has = batch["valid"]
            else:
                targets.append(batch["targets"][task.target].to(self.device, non_blocking=True))
                has = batch["present"][task.target]
            labelled.append(bool(has.any()))
            present.append(has.to(self.device, non_blocking=True))
        inputs = self.inputs(images, batch["seeds"])
        return TaskBatch(inputs, targets, present, labelled, batch["id"])

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Raw predictions by task id, from what :meth:`inputs` returned, in full precision."""
        predictions: dict[str, Tensor] = {}
        for images, tasks in zip(inputs, self.passes, strict=True):
            size = (images.shape[-2], images.shape[-1])
            predictions |= self.decode(self.encode(images), tasks, size)
        return {id: predictions[id] for id in self.tasks}

    def encode(self, images: Tensor) -> Any:
        """What the backbone computes for all tasks of one forward pass."""
        return self.backbone.encode((images - self.mean) / self.std)

    def decode(self, shared: Any, tasks: Sequence[str], size: tuple[int, int]) -> dict[str, Tensor]:
        """Raw predictions of ``tasks`` for images of ``size``, from what :meth:`encode` gave."""
        features = self.backbone.route(shared, tasks)
        return {id: at_least_float32(self.heads[id](features[id], size)) for id in tasks}

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Parameters that only this task uses: its head's, and its part of the backbone."""
        return [*self.backbone.own_parameters(task), *self.heads[task].parameters()]

    def train(self, mode: bool = True) -> "Model":
        """Set training mode; frozen batch normalisation stays in evaluation mode."""
        super().train(mode)
        if mode and self.frozen_bn:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    @torch.inference_mode()
    def raw(
        self, pictures: Tensor, network: Callable[..., dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor]:
        """Raw predictions by task id, on the CPU: one copy from the device for each task.

        Args:
            pictures: uint8 ``[B, 3, H, W]`` of the network's size.
            network: called in the model's place, such as the compiled model.
        """
        was_training = self.training
        self.eval()
        raw = (network or self)(*self.inputs(as_floats(pictures.to(self.device))))
        self.train(was_training)
        return {id: values.cpu() for id, values in raw.items()}

    def save_pretrained(self, folder: Path | str, *, run: Path | str | None = None) -> None:
        """Write weights, configuration and model card, for :meth:`from_pretrained`.

        Args:
            folder: of the files. A card that is there already stays as it is.
            run: folder of the run that trained it, for a card that says how and how well.

        Raises:
            CheckpointError: the model was put together by hand.
        """
        hub.save(self, Path(folder), run=Path(run) if run else None)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        run: Path | str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Model and card, by mtlkit",
    ) -> str:
        """Send to the Hugging Face Hub what :meth:`save_pretrained` writes; see :func:`hub.push`.

        Returns:
            Address of the commit.
        """
        place = Path(run) if run else None
        return hub.push(
            self,
            repo_id,
            run=place,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
        )

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
        local_files_only: bool = False,
    ) -> "Model":
        """The model in a local folder, or else on the Hugging Face Hub; see :func:`hub.find`.

        It is in evaluation mode, on the CPU.

        Raises:
            CheckpointError: it is not found, damaged, or needs a plugin that is absent.
        """
        from mtlkit import load  # components are known by name only to those who use a model

        folder = hub.find(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return cast(Model, load(folder))


def take_single_values(network: nn.Module) -> None:
    """Let batch normalisation be trained where it sees one value per channel, which has no spread.

    It uses its running statistics there. Torch refuses such a batch.
    """

    alone: set[nn.Module] = set()

    def before(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if norm.training and inputs[0].numel() == inputs[0].shape[1]:
            alone.add(norm.eval())

    def after(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if norm in alone:
            alone.discard(norm.train())

    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)


def as_floats(images: Tensor) -> Tensor:
    """Uint8 images in [0, 255] as float32 in [0, 1]."""
    return images.float().div_(255)


def at_least_float32(values: Tensor) -> Tensor:
    """Losses and metrics are computed in single precision or better."""
    return values.float() if values.dtype.itemsize < 4 else values
