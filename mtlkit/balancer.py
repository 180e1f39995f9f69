"""LossBalancer: how the tasks' gradients are combined into one step."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Needs = Literal["losses", "gramian", "columns"]
Heads = Literal["weighted", "raw"]


@dataclass(frozen=True)
class StepStats:
    """What a balancer may know of one optimiser step: the same numbers on every process.

    All are means over every micro-batch of every process between two optimiser steps. Only active
    tasks, those with a label somewhere in the step, are in it; A is their number.

    Args:
        losses: ``[A]`` mean loss of each active task, detached.
        gramian: ``[A, A]`` inner products of their gradients on what the tasks share, float64,
            for balancers that say ``needs = "gramian"`` or ``"columns"``; else None.
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


class Columns(Protocol):
    """The columns of the Jacobian that one process holds, p of the P shared parameters."""

    def rand(self, generator: torch.Generator) -> Tensor:
        """``[p]`` new uniform numbers in [0, 1), alike for a column whichever process has it."""

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over all processes, so over all P columns."""

    def state(self, name: str) -> Tensor:
        """``[T, p]`` in the rows' type, kept from step to step, zeros at first: write into it."""


class LossBalancer(nn.Module, ABC):
    """Decides how the tasks' gradients are combined.

    A pure function of its own state and the :class:`StepStats`: it never sees a model, an
    optimiser, a device, a rank or a ``backward``. State is module state: parameters are learned
    with the network's optimiser, buffers are saved in checkpoints.

    Args:
        tasks: ids of all T tasks, in their fixed order.
    """

    needs: Needs = "losses"
    """What it must see: ``losses`` alone, the ``gramian`` too, or ``columns`` of the Jacobian."""
    linear: bool = False
    """Whether its weights are known before this step's losses are."""
    heads: Heads = "weighted"
    """What a task's own parameters get unless the user says: their gradient times the task's
    weight, or the ``raw`` gradient."""
    revisits: bool = False
    """Whether :meth:`revisit` wants to know the losses after the step; costs a forward pass."""
    report: dict[str, float]
    """About the last decision, for the log: a solver's ``iterations``, and ``failures``, 1 when
    it did not converge and else 0."""

    def __init__(self, tasks: Sequence[str], /) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.report = {}

    @abstractmethod
    def weights(self, stats: StepStats) -> Tensor:
        """What multiplies each active task's gradient on the shared parameters.

        For a balancer that :meth:`combine`\\ s columns instead, which is called first: what
        multiplies each task's gradient on its own parameters.

        Returns:
            ``[A]``, finite.
        """

    def combine(self, rows_Ap: Tensor, stats: StepStats, columns: Columns) -> Tensor:
        """The step's gradient on the shared parameters, for ``needs = "columns"``.

        Called exactly once for each step, so that it may change the columns' state.

        Args:
            rows_Ap: ``[A, p]`` in the parameters' type, this process's columns of the Jacobian of
                the mean losses; may be overwritten.
            stats: of this step.
            columns: what concerns the other processes' columns too.

        Returns:
            ``[p]``.
        """
        raise NotImplementedError(f"{type(self).__name__} needs columns but combines none")

    def param_objective(self, stats: StepStats) -> Tensor | None:
        """What the balancer's own parameters minimise: a differentiable scalar, or None."""
        return None

    def commit(self, stats: StepStats, weights: Tensor) -> None:
        """Remember what a history needs. Called once after each step that really happened."""

    def revisit(self, stats: StepStats, losses: Tensor) -> None:
        """Learn from the losses after the step, if ``revisits``. Called after :meth:`commit`.

        Args:
            stats: of the step.
            losses: ``[A]`` mean losses of the same batches with the changed network.
        """
