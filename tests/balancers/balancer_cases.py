"""A made-up training that any registered balancer can take part in."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats, create, names, registry
from mtlkit.describe import describe

TASKS = ("seg", "cls", "bbox")

EXAMPLES: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "fixed": lambda tasks: {"weights": {task: ord(task[0]) / 99 for task in tasks}},
    "torchjd": lambda tasks: {"method": "DualProj"},
}
"""Options of those that need some."""

PACKAGES = {"torchjd": ("torchjd", "qpsolvers", "quadprog")}
"""What those need that mtlkit does without."""


def buildable() -> list[str]:
    """Names of the balancers that the tests know how to build."""
    needy = {
        registry.load().shortest(component)
        for component in registry.load().components("balancer")
        if any(option.default is None for option in describe(component).options)
    }
    return [
        name
        for name in names("balancer")
        if (name in EXAMPLES or name not in needy) and all(map(find_spec, PACKAGES.get(name, ())))
    ]


def build(name: str, tasks: Sequence[str] = TASKS) -> LossBalancer:
    options = EXAMPLES[name](tasks) if name in EXAMPLES else {}
    balancer: LossBalancer = create("balancer", name, tuple(tasks), **options)
    return balancer


@dataclass(frozen=True)
class Problem:
    """Tasks with gradients and losses that shrink by ``rates_T`` from step to step."""

    jacobian_TP: Tensor
    losses_T: Tensor
    counts_T: Tensor
    rates_T: Tensor
    tasks: tuple[str, ...] = TASKS

    def select(self, rows: Sequence[int]) -> "Problem":
        index = torch.tensor(rows)
        return Problem(
            self.jacobian_TP[index],
            self.losses_T[index],
            self.counts_T[index],
            self.rates_T[index],
            tuple(self.tasks[row] for row in rows),
        )

    def scaled(self, factor: float) -> "Problem":
        return replace(self, jacobian_TP=self.jacobian_TP * factor, losses_T=self.losses_T * factor)

    def at(self, step: int) -> "Problem":
        shrunk = self.rates_T**step
        return replace(
            self,
            jacobian_TP=self.jacobian_TP * shrunk[:, None],
            losses_T=self.losses_T * shrunk,
        )


def problem(rows: Sequence[Sequence[float]], **given: Any) -> Problem:
    """A problem of up to four tasks with these gradients."""
    count = len(rows)
    made: dict[str, Any] = {
        "losses_T": torch.tensor([0.9, 2.3, 1.4, 0.6], dtype=torch.float64)[:count],
        "counts_T": torch.tensor([8.0, 512.0, 6.0, 8.0], dtype=torch.float64)[:count],
        "rates_T": torch.tensor([0.9, 0.75, 0.8, 0.95], dtype=torch.float64)[:count],
        "tasks": (*TASKS, "edge")[:count],
    }
    return Problem(torch.tensor(rows, dtype=torch.float64), **made | given)


CONFLICT = problem([
    [1.0, 2.0, -1.0, 0.5, 0.1],
    [-2.0, 0.5, 1.0, 1.0, 0.7],
    [2.5, 1.0, -2.0, 0.5, -0.4],
])  # fmt: skip
"""Three tasks; the second is in conflict with the two others."""


class OneProcess:
    """All columns on one process."""

    def __init__(self, tasks: int, size: int) -> None:
        self.shape = tasks, size
        self.states: dict[str, Tensor] = {}

    def rand(self, generator: torch.Generator) -> Tensor:
        return torch.rand(self.shape[1], generator=generator)

    def sum(self, values: Tensor) -> Tensor:
        return values

    def state(self, name: str) -> Tensor:
        return self.states.setdefault(name, torch.zeros(self.shape))


class Decision(NamedTuple):
    """What a balancer does with a step.

    ``direction_P`` is the gradient on the shared parameters, ``weights_A`` as the balancer's.
    """

    direction_P: Tensor
    weights_A: Tensor


class Training:
    """A balancer, what the framework keeps for it, and the number of steps done."""

    def __init__(self, name: str, problem: Problem) -> None:
        self.name = name
        self.problem = problem
        self.balancer = build(name, problem.tasks)
        self.columns = OneProcess(*problem.jacobian_TP.shape)
        self.step = 0

    def stats(self, active: Sequence[int] | None = None) -> tuple[StepStats, Tensor]:
        """Of the next step, and the rows ``[A, P]`` of its active tasks; an epoch has one step."""
        rows = range(len(self.problem.tasks)) if active is None else active
        now = self.problem.at(self.step).select(list(rows))
        gramian_AA = now.jacobian_TP @ now.jacobian_TP.T
        stats = StepStats(
            losses=now.losses_T,
            gramian=None if self.balancer.needs == "losses" else gramian_AA,
            index=torch.tensor(list(rows)),
            counts=now.counts_T,
            step=self.step,
            epoch=self.step,
            seed=1,
        )
        return stats, now.jacobian_TP

    def decide(self, active: Sequence[int] | None = None) -> Decision:
        return self.decide_on(*self.stats(active))

    def decide_on(self, stats: StepStats, rows_AP: Tensor) -> Decision:
        if self.balancer.needs == "columns":
            combined = self.balancer.combine(rows_AP.float(), stats, self.columns).double()
            return Decision(combined, self.balancer.weights(stats).detach())
        weights = self.balancer.weights(stats).detach()
        return Decision(weights @ rows_AP, weights)

    def train(self, steps: int = 6, active: Sequence[int] | None = None) -> "Training":
        """Some whole steps: decision, the balancer's own parameters, commit and revisit."""
        for _ in range(steps):
            stats, rows_AP = self.stats(active)
            weights = self.decide_on(stats, rows_AP).weights_A
            self._learn(stats)
            self.balancer.commit(stats, weights)
            self.step += 1
            if self.balancer.revisits:
                self.balancer.revisit(stats, self.stats(active)[0].losses)
        return self

    def _learn(self, stats: StepStats) -> None:
        parameters = list(self.balancer.parameters())
        objective = self.balancer.param_objective(stats) if parameters else None
        if objective is None:
            assert not parameters, f"{self.name} has parameters but gives them no objective"
            return
        gradients = torch.autograd.grad(objective, parameters)
        with torch.no_grad():  # as Adam, steps of the same length in any unit
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * gradient / gradient.norm().clamp(min=1e-12)

    def resumed(self) -> "Training":
        """Another one that goes on from a checkpoint of this one."""
        file = io.BytesIO()
        torch.save((self.balancer.state_dict(), self.columns.states), file)
        file.seek(0)
        state, columns = torch.load(file, weights_only=True)
        other = Training(self.name, self.problem)
        other.balancer.load_state_dict(state)
        other.columns.states = columns
        other.step = self.step
        return other
