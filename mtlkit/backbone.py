"""Backbone: images to features, one entry per task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


@dataclass(frozen=True)
class FeatureSpec:
    """What the features of a backbone look like, so that no head asks which backbone it sits on.

    Args:
        channels: of each level, finest first.
        strides: of each level; level i is ``[B, channels[i], H / strides[i], W / strides[i]]``.
        dense: channels of the decoded map at the images' own size, or None when the backbone
            does not decode by itself.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    dense: int | None = None


class Features(NamedTuple):
    """What one task gets to see of the images.

    Args:
        levels: finest first, level i is ``[B, C_i, H / s_i, W / s_i]``.
        dense: ``[B, C, H, W]``, for tasks whose head reads a map of a backbone that decodes
            by itself; else None.
    """

    levels: tuple[Tensor, ...]
    dense: Tensor | None = None


class Backbone(nn.Module, ABC):
    """Turns images into features, in two steps, so that what is shared is visible.

    A subclass sets ``spec`` in its constructor and writes :meth:`encode`; one that gives each
    task something of its own also writes :meth:`route` and :meth:`own_modules`.

    Args:
        tasks: ids of all tasks, in their fixed order.
        dense_tasks: ids of those whose head reads ``Features.dense`` where there is one.
        in_channels: channels of the images.
    """

    spec: FeatureSpec
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Subtracted from images in [0, 1], per RGB channel, before :meth:`encode`."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """What images are divided by after that."""
    multiple: int = 32
    """The sides of the images must be multiples of this."""
    decodes: ClassVar[bool] = False
    """Whether ``Features.dense`` exists, known before the backbone is built."""
    recomputes: bool = False
    """Whether the backbone calls its blocks through :meth:`recompute`."""
    _again: Callable[..., Any] | None = None

    def __init__(
        self, tasks: Sequence[str], dense_tasks: Sequence[str] = (), in_channels: int = 3, /
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.dense_tasks = tuple(dense_tasks)
        self.in_channels = in_channels

    @abstractmethod
    def encode(self, images: Tensor) -> Any:
        """What every task shares.

        Args:
            images: ``[B, C, H, W]``, normalised by ``mean`` and ``std``.

        Returns:
            Anything :meth:`route` understands; :class:`Features` when all tasks see the same.
        """

    def route(self, shared: Any, tasks: Sequence[str], /) -> dict[str, Features]:
        """What each of ``tasks`` takes of what :meth:`encode` returned; the same for all here."""
        return dict.fromkeys(tasks, shared)

    def own_modules(self, task: str, /) -> Iterable[nn.Module]:
        """Modules that only ``task`` uses. Every other parameter of the backbone is shared."""
        return ()

    def own_parameters(self, task: str, /) -> Iterator[nn.Parameter]:
        """Parameters of the backbone that only ``task`` uses."""
        for module in self.own_modules(task):
            yield from module.parameters()

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters that several tasks use: all that no task owns."""
        owned = {id(p) for task in self.tasks for p in self.own_parameters(task)}
        return [p for p in self.parameters() if id(p) not in owned]

    def initialise(self) -> list[str]:
        """Load the weights that the options ask for.

        Called once when a new run starts; never when a saved model is loaded.

        Returns:
            Lines for the user: what was loaded, and what was left out and why.
        """
        return []

    def attention(self, images: Tensor, /) -> dict[str, list[Tensor]]:
        """Attention masks by task, for pictures; nothing for a backbone that has none.

        Args:
            images: as for :meth:`encode`.

        Returns:
            For each task its masks ``[B, C, h, w]`` in [0, 1], in the order they are applied.
        """
        return {}

    def checkpoint_activations(self) -> None:
        """From now on compute the activations inside :meth:`recompute` again in the backward pass.

        Raises:
            ValueError: this backbone cannot.
        """
        if not self.recomputes:
            raise ValueError(
                f"{type(self).__name__} cannot compute activations again; leave activation "
                "checkpointing out, or use another backbone"
            )
        self._again = torch.compiler.disable(_recompute)  # type: ignore[no-untyped-call]

    def recompute(self, function: Callable[..., Result], *inputs: Any) -> Result:
        """``function(*inputs)``, of which only the inputs are kept for the backward pass if asked.

        Then outputs, gradients and running statistics are as without: random numbers are the same
        again, and batch norm does not count the second pass.

        Args:
            function: of tensors, which it does not alter. Every module that it calls is itself or
                one of the inputs.
            inputs: its arguments.
        """
        if self._again is None or not torch.is_grad_enabled():
            return function(*inputs)
        modules = [m for m in (function, *inputs) if isinstance(m, nn.Module)]
        norms = [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]
        result: Result = self._again(function, inputs, norms)
        return result

    def check_size(self, height: int, width: int) -> None:
        """Refuse images that do not survive the backbone's strides.

        Raises:
            ValueError: a side is no multiple of ``multiple``; the message has sizes that work.
        """
        m = self.multiple
        if height % m or width % m:
            near = [f"{max(m, s // m * m)} or {(s + m - 1) // m * m}" for s in (height, width)]
            raise ValueError(
                f"{type(self).__name__} needs image sides that are multiples of {m}, "
                f"but got {height} x {width}; use a height of {near[0]} and a width of {near[1]}"
            )


def _recompute(
    function: Callable[..., Result], inputs: Sequence[Any], norms: Sequence[_BatchNorm]
) -> Result:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _Uncounted(norms)

    result: Result = checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)
    return result


class _Uncounted:
    """Lets passes in training mode leave no trace in running statistics.

    It is entered anew in every backward pass through the same graph.
    """

    def __init__(self, norms: Sequence[_BatchNorm]) -> None:
        self.norms = norms
        self.before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
