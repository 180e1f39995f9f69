"""Smooth Tchebycheff scalarisation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._by_task import by_task, weights_by_task
from mtlkit_balancers._positive import positive


class STCH(LossBalancer):
    """A smooth maximum of the losses: the worst task counts most.

    There are two, which are different functions. With ``log``, the form of the authors' multi-task
    experiments and of LibMTL, it is T mu log sum exp(log(L / n) / mu), where the nadir n is a
    task's mean loss in epoch ``warmup``, over labelled elements. Up to the end of that epoch, it is
    the sum of log L. A task without a label in it has L / n = 1. A loss below 1e-8 counts as 1e-8,
    where they add 1e-20.

    Without, the form of the paper's definition and of TorchJD, it is
    mu log sum exp(w (L - z) / mu), for which the losses' units matter.

    Args:
        log: which of the two.
        mu: above 0; small values come close to the maximum.
        warmup: with ``log``, epochs before the one that measures the nadir, 0 or more.
        weights: without ``log``, the preference w for every task by its id, 0 or more; in the paper
            they add up to 1. 1 / T by default.
        reference: without ``log``, the ideal loss z for every task by its id; 0 by default.

    Raises:
        ValueError: ``mu`` is not above 0, ``warmup`` is negative, ``weights`` or ``reference`` do
            not name the tasks, a weight is negative or all are 0, or they are given with ``log``.

    Reference: Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
        ICML 2024, arXiv 2402.19078.
    """

    preferences: Tensor
    ideals: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        /,
        *,
        log: bool = True,
        mu: float = 1.0,
        warmup: int = 4,
        weights: dict[str, float] | None = None,
        reference: dict[str, float] | None = None,
    ) -> None:
        super().__init__(tasks)
        if not mu > 0:
            raise ValueError(f"mu must be above 0, but is {mu}")
        if warmup < 0:
            raise ValueError(f"warmup must be 0 or more, but is {warmup}")
        if log and (weights or reference):
            raise ValueError(
                f"{'weights' if weights else 'reference'} belongs to the form without a logarithm; "
                "set log to false or leave it out"
            )
        self.log = log
        self.mu = mu
        self.warmup = warmup
        equal, nothing = (dict.fromkeys(self.tasks, x) for x in (1 / len(self.tasks), 0.0))
        preferences = weights_by_task("weights", weights or equal, self.tasks)
        self.register_buffer("preferences", preferences, persistent=False)
        ideals = by_task("reference", reference or nothing, self.tasks)
        self.register_buffer("ideals", ideals, persistent=False)
        self.register_buffer("sums", torch.zeros(len(self.tasks), dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(len(self.tasks), dtype=torch.float64))

    def weights(self, stats: StepStats) -> Tensor:
        """The derivatives of the form for the losses: ``[A]``."""
        if not self.log:
            preferences = self.preferences[stats.index].to(stats.losses)
            regrets = preferences * (stats.losses - self.ideals[stats.index].to(stats.losses))
            return preferences * torch.softmax(regrets / self.mu, dim=0)
        losses = positive(stats.losses)
        if stats.epoch <= self.warmup:
            return 1 / losses
        nadirs = positive(self.sums / self.counts)[stats.index].to(losses)
        regrets = (losses / nadirs).log().nan_to_num(nan=0.0)
        return len(losses) * torch.softmax(regrets / self.mu, dim=0) / losses

    def commit(self, stats: StepStats, weights: Tensor) -> None:
        """In the epoch that measures the nadir, add this step's losses to it."""
        if stats.epoch == self.warmup:
            self.sums[stats.index] += (stats.losses * stats.counts).to(self.sums)
            self.counts[stats.index] += stats.counts.to(self.counts)
