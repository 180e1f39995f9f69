"""From chosen names and options to the parts of a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm.optim
import timm.scheduler
import torch
from accelerate import Accelerator
from torch import nn

from mtlkit import __version__, registry
from mtlkit.allowance import Allowance
from mtlkit.balancer import LossBalancer
from mtlkit.balancing import Balancing
from mtlkit.config import HandedOver, plain, plugins
from mtlkit.data import Dataset, DatasetSpec
from mtlkit.errors import CheckpointError, ConfigError, MtlkitError, did_you_mean
from mtlkit.head import Head
from mtlkit.model import Model, Views, view_channels
from mtlkit.model_folder import read_model
from mtlkit.random_state import seed_everything
from mtlkit.saved import read_saved, writers
from mtlkit.settings import Choice, Config, Settings, TaskChoice
from mtlkit.sharing import Sharing
from mtlkit.step import Step
from mtlkit.task import Task

SCHEDULERS = ("constant", "cosine", "multistep", "none", "poly", "rsqrt", "step", "tanh", "wsd")

FUSED = ("adam", "adamw")
"""Optimisers of torch that have one kernel for the whole step, on the CPU too."""


def create(kind: str, choice: Choice, *given: Any) -> Any:
    """Build one component.

    Args:
        kind: ``task``, ``head``, ``backbone``, ``balancer`` or ``dataset``.
        choice: its name and options.
        given: what the framework gives to a component of this kind.

    Raises:
        ConfigError: the component refuses its options; the message is its own.
    """
    component = registry.load().find(kind, choice.name).load()
    try:
        return component(*given, **choice.options)
    except MtlkitError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{kind} '{choice.name}': {error}") from error


def parse_image_size(size: int | str) -> tuple[int, int]:
    """``128`` or ``"96x128"`` as (height, width).

    Raises:
        ConfigError: it is neither.
    """
    parts = str(size).lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"image size must be like 128 or 96x128 (height, width), not '{size}'")
    return int(parts[0]), int(parts[-1])


def build_model(
    tasks: Mapping[str, TaskChoice],
    backbone: Choice,
    spec: DatasetSpec,
    *,
    image_size: tuple[int, int],
    views: Views,
    channels: int | None = None,
) -> Model:
    """The network for these tasks on a dataset of this kind, without any loaded weights.

    Args:
        tasks: by id.
        backbone: what they share.
        spec: of the dataset.
        image_size: height and width the network sees, in pixels.
        views: whether tasks that alter the image do so for all.
        channels: of the images the network sees, if not what these tasks make of them.
    """
    spec.check_names()
    for id in filter(partial(hasattr, nn.ModuleDict()), tasks):
        raise ConfigError(f"a task cannot be called '{id}', as torch keeps that word for itself")
    built = [create("task", choice, id, spec, image_size) for id, choice in tasks.items()]
    heads = {task.id: _head_choice(task, tasks[task.id]) for task in built}
    reads = {id: _head_class(choice).reads_dense for id, choice in heads.items()}
    network = create(
        "backbone",
        backbone,
        tuple(tasks),
        tuple(id for id, dense in reads.items() if dense),
        channels or view_channels(built, views),
    )
    try:
        return Model(
            built,
            network,
            {
                task.id: create("head", heads[task.id], network.spec, task.out_channels)
                for task in built
            },
            image_size=image_size,
            views=views,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _head_choice(task: Task, choice: TaskChoice) -> Choice:
    head = choice.head or Choice(task.default_head)
    output = _head_class(head).output
    if output != task.output:
        raise ConfigError(
            f"task '{task.id}' predicts a {task.output}, but head '{head.name}' a {output}; its "
            f"default head is '{task.default_head}'"
        )
    return head


def _head_class(choice: Choice) -> type[Head]:
    head: type[Head] = registry.load().find("head", choice.name).load()
    return head


@dataclass
class Parts:
    """All that a run is made of, built from its configuration, on the CPU."""

    dataset: Dataset
    model: Model
    balancer: LossBalancer
    image_size: tuple[int, int]


def build(config: Config, dataset: Dataset | None = None) -> Parts:
    """Build what the configuration names; every mistake in it shows here.

    Args:
        config: of the run.
        dataset: what the configuration names, if it was built before.
    """
    settings = config.settings
    dataset = _dataset(config.data) if dataset is None else dataset
    image_size = parse_image_size(settings.image_size or dataset.image_size)
    seed_everything(settings.seed)
    model = build_model(
        config.tasks, config.backbone, dataset.spec, image_size=image_size, views=settings.views
    )
    model.frozen_bn = settings.freeze_bn
    if settings.checkpoint_activations:
        try:
            model.backbone.checkpoint_activations()
        except ValueError as error:
            raise ConfigError(f"backbone '{config.backbone.name}': {error}") from error
    balancer = create("balancer", config.balancer, tuple(config.tasks))
    check_monitor(settings.monitor, model)
    parts = Parts(dataset, model, balancer, image_size)
    model.config = model_config(config, parts)
    return parts


def _dataset(choice: Choice) -> Dataset:
    if isinstance(choice, HandedOver) and choice.dataset is not None:
        return choice.dataset
    return cast(Dataset, create("dataset", choice))


def check_monitor(monitor: str | None, model: Model) -> None:
    """Refuse a metric that no task reports."""
    if monitor is None:
        return
    known = ["loss"]
    for task in model.tasks.values():
        known += [f"{task.id}/{name}" for name in (*task.metric_names, "loss")]
    if monitor not in known:
        raise ConfigError(
            f"no metric called '{monitor}' to monitor{did_you_mean(monitor, known)} "
            f"Available: {', '.join(known)}"
        )


def build_optimizer(
    settings: Settings, model: Model, balancer: LossBalancer
) -> torch.optim.Optimizer:
    """One optimiser over the model's and the balancer's parameters.

    Weights decay; biases, normalisation and the balancer's parameters do not.

    Raises:
        ConfigError: timm knows no optimiser of this name.
    """
    groups: list[dict[str, Any]] = list(
        timm.optim.param_groups_weight_decay(model, settings.weight_decay)
    )
    learned = [p for p in balancer.parameters() if p.requires_grad]
    if learned:
        groups.append({"params": learned, "weight_decay": 0.0})
    names = timm.optim.list_optimizers()
    if settings.optimizer not in names:
        raise ConfigError(
            f"unknown optimizer '{settings.optimizer}'{did_you_mean(settings.optimizer, names)} "
            f"Available: {', '.join(names)}"
        )
    options = {"opt": settings.optimizer, "lr": settings.lr, "weight_decay": settings.weight_decay}
    fused = {"fused": True} if settings.optimizer in FUSED else {}
    optimizer: torch.optim.Optimizer = timm.optim.create_optimizer_v2(groups, **options, **fused)
    return optimizer


def build_engine(
    settings: Settings,
    accelerator: Accelerator,
    model: Model,
    balancer: LossBalancer,
    optimizer: Any,
    sharing: Sharing,
) -> Step:
    """What does the optimiser steps.

    Args:
        settings: of the run.
        accelerator: of the run.
        model: on the device.
        balancer: of the run; it moves to where it will decide.
        optimizer: prepared by Accelerate.
        sharing: of the model.

    Raises:
        ConfigError: settings and components do not go together.
    """
    balancing = Balancing(
        balancer,
        losses=settings.losses,
        smooth=settings.smooth,
        scale=settings.balancer_scale,
        every=settings.balance_every,
        heads=settings.heads,
    )
    return Step(
        accelerator,
        model,
        balancing,
        optimizer,
        sharing,
        gradients=settings.gradients,
        accumulate=settings.accumulate,
        clip=settings.clip,
        seed=settings.seed,
        conflict_every=settings.conflict_every,
        compile=settings.compile,
        on_nonfinite=settings.on_nonfinite,
    )


def build_scheduler(settings: Settings, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """A timm scheduler that is asked once a step, over ``steps`` steps; None for ``none``.

    The learning rate rises over the first ``warmup`` share of the steps; ``step`` divides it by
    10 after each third of the run, ``multistep`` after one half and three quarters.

    Raises:
        ConfigError: timm knows no scheduler of this name.
    """
    name = settings.scheduler
    if name not in SCHEDULERS:
        raise ConfigError(
            f"unknown scheduler '{name}'{did_you_mean(name, SCHEDULERS)} "
            f"Available: {', '.join(SCHEDULERS)}"
        )
    scheduler, _ = timm.scheduler.create_scheduler_v2(
        optimizer,
        sched=name,
        num_epochs=1,  # the whole run is one "epoch" of so many updates
        updates_per_epoch=max(steps, 1),
        step_on_epochs=False,
        warmup_epochs=settings.warmup,
        warmup_lr=settings.lr / 100,
        decay_epochs=1 / 3,
        decay_milestones=[0.5, 0.75],
    )
    return scheduler


def model_config(config: Config, parts: Parts) -> dict[str, Any]:
    """What ``model/config.json`` holds: all that :func:`load_model` needs but the weights."""
    tree = {
        "mtlkit": __version__,
        "tasks": {id: asdict(choice) for id, choice in config.tasks.items()},
        "backbone": asdict(config.backbone),
        "views": config.settings.views,
        "image_size": list(parts.image_size),
        "data": parts.dataset.spec.to_json(),
        "plugins": plugins(config),
    }
    described: dict[str, Any] = plain(tree)
    return described


def load_model(folder: Path, image_size: tuple[int, int] | None = None) -> Model:
    """The network saved in a run or model folder, in evaluation mode, on the CPU.

    Args:
        folder: of a run, or of a model.
        image_size: height and width, if not those it was trained at.

    Raises:
        CheckpointError: nothing is saved there, it is damaged, or it needs a plugin that is
            absent; the message names it.
    """
    tree, weights = read_model(folder)
    try:
        saved = read_saved(tree)
        with Allowance(weights):
            model = build_model(
                saved.tasks,
                saved.backbone,
                saved.spec,
                image_size=image_size or saved.image_size,
                views=saved.views,
            )
        weights.load_into(model)
    except Exception as error:  # constructors may raise whatever they like about odd options
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"cannot rebuild the model in {folder}: {reason}{writers(tree)}"
        ) from error
    model.config = tree
    return model.eval()
