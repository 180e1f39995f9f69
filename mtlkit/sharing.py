"""Sharing: which tasks use which parameters, found out from one forward pass."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mtlkit.errors import ConfigError
from mtlkit.model import Model


@dataclass(frozen=True)
class Sharing:
    """The trained parameters of a model by who uses them.

    Args:
        shared: what several tasks use; of a network with one task, its backbone.
        own: by task id, what only this task uses.
        after_features: those of ``shared`` that come after the backbone's shared features.
        users: positions of the tasks that use a parameter.
        unused: names of parameters that no task uses.
    """

    shared: list[nn.Parameter]
    own: dict[str, list[nn.Parameter]]
    after_features: list[nn.Parameter]
    users: dict[nn.Parameter, frozenset[int]]
    unused: list[str]

    def freeze_unused(self, model: Model) -> None:
        """Take what no task uses out of the training; DDP would wait for it for ever."""
        for name in self.unused:
            model.get_parameter(name).requires_grad_(False)


def find_sharing(model: Model) -> Sharing:
    """Follow each task's prediction back to the parameters it was computed from.

    Raises:
        ConfigError: the backbone declares a parameter to be one task's own that another uses, or
            it hides parameters from us by reentrant checkpointing.
    """
    features, predictions = _forward(model)
    uses = {id: _reached([prediction]) for id, prediction in predictions.items()}
    trunk = _reached(features)
    _check_declared(model, uses)
    in_backbone = {id(p) for p in model.backbone.shared_parameters()}
    shared, unused = [], []
    own: dict[str, list[nn.Parameter]] = {id: [] for id in model.tasks}
    users = {}
    for name, parameter in model.named_parameters():
        by = [i for i, task in enumerate(uses) if id(parameter) in uses[task]]
        if not parameter.requires_grad:
            continue
        if not by:
            unused.append(name)
            continue
        users[parameter] = frozenset(by)
        if len(by) > 1 or (len(uses) == 1 and id(parameter) in in_backbone):
            shared.append(parameter)
        else:
            own[tuple(uses)[by[0]]].append(parameter)
    after = [p for p in shared if id(p) not in trunk]
    return Sharing(shared, own, after, users, unused)


def _forward(model: Model) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Shared features and predictions for two grey images; the model stays as it was."""
    was_training = model.training
    images = torch.full((2, 3, *model.image_size), 0.5, device=model.device)
    features: list[Tensor] = []
    predictions: dict[str, Tensor] = {}
    with torch.random.fork_rng(), kept_buffers(model), torch.enable_grad():
        model.train()
        for view, tasks in zip(model.inputs(images), model.passes, strict=True):
            shared = model.encode(view.to(model.mean.dtype))
            features += [leaf for leaf in tree_leaves(shared) if isinstance(leaf, Tensor)]
            predictions |= model.decode(shared, tasks, model.image_size)
    model.train(was_training)
    return features, predictions


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Let a forward pass in training mode leave no trace in running statistics."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)


def _reached(tensors: Iterable[Tensor]) -> set[int]:
    """``id`` of every parameter in the graphs of these tensors."""
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    found = set()
    while waiting:
        node = waiting.pop()
        if "CheckpointFunction" in node.name():
            raise ConfigError(
                "the network uses reentrant activation checkpointing, which hides its parameters "
                "from methods that look at gradients; use checkpoint(..., use_reentrant=False)"
            )
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return found


def _check_declared(model: Model, uses: dict[str, set[int]]) -> None:
    names = {id(p): name for name, p in model.named_parameters()}
    for task in model.tasks:
        for parameter in model.own_parameters(task):
            others = [t for t in uses if t != task and id(parameter) in uses[t]]
            if others:
                raise ConfigError(
                    f"{type(model.backbone).__name__} declares {names[id(parameter)]} to be used "
                    f"by task '{task}' alone, but task '{others[0]}' uses it too; its "
                    "own_modules() must leave it out"
                )
