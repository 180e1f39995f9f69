"""A made-up training that any balancer can take part in."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mtlkit.balancer import LossBalancer, StepStats
from mtlkit.testing.compare import finite
from mtlkit.testing.conformance import TASKS, Fault, Subject, expect


@dataclass(frozen=True)
class Tasks:
    """Tasks with gradients on five parameters; both shrink by ``rates_T`` from step to step."""

    jacobian_TP: Tensor
    losses_T: Tensor
    rates_T: Tensor
    ids: tuple[str, ...] = TASKS

    def select(self, rows: Sequence[int]) -> "Tasks":
        """Some of them, in this order."""
        index, ids = list(rows), tuple(self.ids[row] for row in rows)
        return Tasks(self.jacobian_TP[index], self.losses_T[index], self.rates_T[index], ids)

    def at(self, step: int) -> "Tasks":
        """After so many steps."""
        shrunk_T = self.rates_T**step
        jacobian_TP = self.jacobian_TP * shrunk_T[:, None]
        return replace(self, jacobian_TP=jacobian_TP, losses_T=self.losses_T * shrunk_T)

    def scaled(self, *factors: float) -> "Tasks":
        """Losses and gradients in other units."""
        factors_T = torch.tensor(factors, dtype=torch.float64)
        jacobian_TP = self.jacobian_TP * factors_T[:, None]
        return replace(self, jacobian_TP=jacobian_TP, losses_T=self.losses_T * factors_T)

    def along(self, *rows: Sequence[float]) -> "Tasks":
        """With these gradients."""
        return replace(self, jacobian_TP=torch.tensor(rows, dtype=torch.float64))


CONFLICT = Tasks(
    torch.tensor(
        [
            [1.0, 2.0, -1.0, 0.5, 0.1],
            [-2.0, 0.5, 1.0, 1.0, 0.7],
            [2.5, 1.0, -2.0, 0.5, -0.4],
        ],
        dtype=torch.float64,
    ),
    torch.tensor([0.9, 2.3, 1.4], dtype=torch.float64),
    torch.tensor([0.9, 0.75, 0.8], dtype=torch.float64),
)
"""The second is in conflict with the two others."""

FIRST = CONFLICT.jacobian_TP[0].tolist()
HARD = {
    "alike": CONFLICT.along(FIRST, FIRST, FIRST),
    "opposed": CONFLICT.along(FIRST, [-2 * x for x in FIRST], FIRST),
    "all zero": CONFLICT.along([0.0] * 5, [0.0] * 5, [0.0] * 5),
    "zero for one task": CONFLICT.along(FIRST, [0.0] * 5, [1.0] * 5),
    "zero, with a loss of zero, for one task": CONFLICT.scaled(1, 0, 1),
    "very small": CONFLICT.scaled(1e-4, 1e-4, 1e-4),
    "very large": CONFLICT.scaled(1e4, 1e4, 1e4),
    "very unequal": CONFLICT.scaled(1e-3, 1e3, 1),
}
"""Gradients of three tasks that networks really have."""


class Drawn(StepStats):
    """Remembers whether random numbers were asked for."""

    def rng(self, salt: str = "") -> torch.Generator:
        """As its base's."""
        object.__setattr__(self, "drawn", True)
        return super().rng(salt)


class Decision(NamedTuple):
    """The gradient on the shared parameters, and what the balancer calls its weights."""

    direction_P: Tensor
    weights_A: Tensor


@dataclass
class Columns:
    """All columns on one process."""

    states: dict[str, Tensor] = field(default_factory=dict)
    shape: tuple[int, int] = (3, 5)

    def rand(self, generator: torch.Generator) -> Tensor:
        """``[p]`` in [0, 1)."""
        return torch.rand(self.shape[1], generator=generator)

    def sum(self, values: Tensor) -> Tensor:
        """The only process's values."""
        return values

    def state(self, name: str) -> Tensor:
        """``[T, p]``, kept."""
        return self.states.setdefault(name, torch.zeros(self.shape))


class Training:
    """A balancer, what the framework keeps for it, and the number of steps done."""

    def __init__(self, subject: Subject, tasks: Tasks = CONFLICT) -> None:
        self.tasks = tasks
        self.balancer: LossBalancer = subject.build(tasks.ids)
        self.columns = Columns(shape=(len(tasks.ids), tasks.jacobian_TP.shape[1]))
        self.step = 0

    def stats(self, active: Sequence[int] | None = None) -> tuple[Drawn, Tensor]:
        """Of the next step, and the rows ``[A, P]`` of its active tasks; an epoch has one step."""
        rows = list(range(len(self.tasks.ids)) if active is None else active)
        now = self.tasks.at(self.step).select(rows)
        gramian_AA = now.jacobian_TP @ now.jacobian_TP.T
        stats = Drawn(
            losses=now.losses_T,
            gramian=None if self.balancer.needs == "losses" else gramian_AA,
            index=torch.tensor(rows),
            step=self.step,
            epoch=self.step,
            seed=1,
        )
        return stats, now.jacobian_TP

    def decide(self, active: Sequence[int] | None = None) -> Decision:
        """On the next step, without doing it."""
        return self.decide_on(*self.stats(active))

    def decide_on(self, stats: StepStats, rows_AP: Tensor) -> Decision:
        """On these numbers; raises a fault when the answer has the wrong form."""
        if self.balancer.needs == "columns":
            combined = self.balancer.combine(rows_AP.float(), stats, self.columns)
            fault = f"combine() returns {tuple(combined.shape)} for [A, p] = {tuple(rows_AP.shape)}"
            expect(combined.shape == rows_AP.shape[1:], fault)
        weights = self.balancer.weights(stats).detach()
        fault = f"weights() returns {tuple(weights.shape)} for {len(rows_AP)} active tasks"
        expect(weights.shape == (len(rows_AP),), fault)
        if self.balancer.needs == "columns":
            return Decision(combined.double(), weights)
        return Decision(weights.double() @ rows_AP, weights)

    def train(self, steps: int = 6, active: Sequence[int] | None = None) -> "Training":
        """Some whole steps: decision, the balancer's own parameters, commit and revisit."""
        for _ in range(steps):
            stats, rows_AP = self.stats(active)
            weights = self.decide_on(stats, rows_AP).weights_A
            self.learn(stats)
            with torch.no_grad():
                self.balancer.commit(stats, weights)
            self.step += 1
            if self.balancer.revisits:
                with torch.no_grad():
                    self.balancer.revisit(stats, self.stats(active)[0].losses)
        return self

    def learn(self, stats: StepStats) -> None:
        """A step of gradient descent on the balancer's own parameters."""
        parameters = list(self.balancer.parameters())
        if not parameters:
            return
        objective = self.balancer.param_objective(stats)
        if objective is None:
            raise Fault("it has parameters, but param_objective() gives None")
        gradients = torch.autograd.grad(objective, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                expect(finite(gradient), "the gradient of param_objective() is not finite")
                parameter.sub_(0.1 * gradient / gradient.norm().clamp(min=1e-12))

    @property
    def tolerance(self) -> float:
        """Columns are combined in float32, all else is decided in float64."""
        return 1e-4 if self.balancer.needs == "columns" else 1e-6
