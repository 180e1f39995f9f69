"""How to build any registered balancer, and a made-up training for it."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from mtlkit import LossBalancer, create, names, registry
from mtlkit.describe import describe
from mtlkit.testing import conformance, training
from mtlkit.testing.training import Tasks

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


def tasks_with(rows: Sequence[Sequence[float]], **given: Any) -> Tasks:
    """Up to four tasks with these gradients."""
    count = len(rows)
    made: dict[str, Any] = {
        "losses_T": torch.tensor([0.9, 2.3, 1.4, 0.6], dtype=torch.float64)[:count],
        "rates_T": torch.tensor([0.9, 0.75, 0.8, 0.95], dtype=torch.float64)[:count],
        "ids": (*TASKS, "edge")[:count],
    }
    return Tasks(torch.tensor(rows, dtype=torch.float64), **made | given)


CONFLICT = tasks_with(training.CONFLICT.jacobian_TP.tolist())
"""Three tasks; the second is in conflict with the two others."""


class Training(training.Training):
    """The conformance checks' training, of a registered balancer."""

    def __init__(self, name: str, tasks: Tasks) -> None:
        options = EXAMPLES[name](tasks.ids) if name in EXAMPLES else {}
        super().__init__(conformance.subject("balancer", name, options), tasks)
