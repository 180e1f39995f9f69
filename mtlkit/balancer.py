"""LossBalancer: how the tasks' gradients are combined into one step."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Needs = Literal["losses", "gramian", "columns"]


@dataclass(frozen=True)
class StepStats:
    """What a balancer may know of one optimiser step: the same numbers on every process.

    All are means over every micro-batch of every process between two optimiser steps. Only active
    tasks, those with a label somewhere in the step, are in it; A is their number.

    Args:
        losses: ``[A]`` mean loss of each active task, detached.
        gramian: ``[A, A]`` inner products of their gradients on the shared parameters, float64,
            for balancers that say ``needs = "gramian"``.
        index: ``[A]`` int64, the position of each active task among all T tasks.
        counts: ``[A]`` number of labelled elements each loss was averaged over.
        step: optimiser steps done before this one.
        epoch: passes over the data done before this one.
        seed: of the run.
    """

    losses: Tensor
    gramian: Tensor | None = None
    index: Tensor = None  # type: ignore[assignment]
    counts: Tensor = None  # type: ignore[assignment]
    step: int = 0
    epoch: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.index is None:
            index = torch.arange(len(self.losses), device=self.losses.device)
            object.__setattr__(self, "index", index)
        if self.counts is None:
            object.__setattr__(self, "counts", torch.ones_like(self.losses))

    def rng(self, salt: str = "") -> torch.Generator:
        """Random numbers that depend on (seed, step, salt) alone: alike on every process."""
        words = f"{self.seed}/{self.step}/{salt}".encode()
        seed = int.from_bytes(hashlib.blake2b(words, digest_size=7).digest(), "big")
        return torch.Generator().manual_seed(seed)


class LossBalancer(nn.Module, ABC):
    """Decides how the tasks' gradients are combined.

    A pure function of its own state and the :class:`StepStats`: it never sees a model, an
    optimiser, a device, a rank or a ``backward``. State is module state: parameters are learned
    with the network's optimiser, buffers are saved in checkpoints.

    Args:
        tasks: ids of all T tasks, in their fixed order.
    """

    needs: ClassVar[Needs] = "losses"
    """What it must see: ``losses`` alone, the ``gramian`` too, or ``columns`` of the Jacobian."""
    linear: ClassVar[bool] = False
    """Whether its weights are known before this step's losses are."""

    def __init__(self, tasks: Sequence[str], /) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    @abstractmethod
    def weights(self, stats: StepStats) -> Tensor:
        """What multiplies each active task's gradient on the shared parameters.

        Returns:
            ``[A]``, finite.
        """

    def objective(self, losses: Tensor, stats: StepStats) -> Tensor:
        """A scalar to minimise, differentiable in ``losses`` and in the balancer's parameters.

        Args:
            losses: ``[A]``, the same values as ``stats.losses``, with a gradient.
            stats: of this step.
        """
        return (self.weights(stats).detach() * losses).sum()

    def commit(self, stats: StepStats, weights: Tensor) -> None:
        """Remember what a history needs. Called once after each step that really happened."""
