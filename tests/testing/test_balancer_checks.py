"""Every check of balancers finds its fault."""

from typing import ClassVar

import pytest
import torch
from faults import fault, own_checks
from torch import nn

from mtlkit import LossBalancer
from mtlkit.testing import check_balancer, conformance


class Right(LossBalancer):
    """Each loss divided by its own average over the steps, to a power.

    Args:
        power: 0 is equal weights.
    """

    def __init__(self, tasks, /, *, power: float = 0.5):
        super().__init__(tasks)
        self.power = power
        self.register_buffer("average", torch.ones(len(tasks), dtype=torch.float64))

    def weights(self, stats):
        average = self.average[stats.index].to(stats.losses)
        return (average / stats.losses.clamp(min=1e-3)).clamp(min=1e-3) ** self.power

    def commit(self, stats, weights):
        average = 0.9 * self.average[stats.index] + 0.1 * stats.losses.to(self.average)
        self.average[stats.index] = average


class ByTask(Right):
    """The weights that the user gives.

    Args:
        shares: by task.
    """

    def __init__(self, tasks, /, *, shares: dict[str, float]):
        super().__init__(tasks)
        if set(shares) != set(tasks):
            raise ValueError(f"shares are of {sorted(shares)}")
        self.register_buffer("shares", torch.tensor([shares[task] for task in tasks]))

    def weights(self, stats):
        return self.shares[stats.index].to(stats.losses)


class Projected(Right):
    """The sum, by columns, of smoothed gradients."""

    needs = "columns"

    def combine(self, rows_Ap, stats, columns):
        kept = columns.state("kept")
        kept[stats.index] += 0.5 * (rows_Ap - kept[stats.index])
        return kept[stats.index].sum(0)

    def weights(self, stats):
        return torch.ones_like(stats.losses)


class Random(Right):
    """Random weights."""

    def weights(self, stats):
        return torch.rand(len(stats.losses), generator=stats.rng()).to(stats.losses) + 0.1


class OtherNeed(Right):
    needs = "gradients"


class Infinite(Right):
    def weights(self, stats):
        return 1 / stats.losses


class Negative(Right):
    def weights(self, stats):
        return -super().weights(stats)


class FirstIsMain(Right):
    def weights(self, stats):
        return super().weights(stats) / (1 + stats.index)


class AllTasks(Right):
    def weights(self, stats):
        return self.average.clone()


class Hasty(Right):
    def weights(self, stats):
        self.commit(stats, stats.losses)
        return super().weights(stats)


class Clamping(Right):
    def weights(self, stats):
        stats.losses.clamp_(max=1.0)
        return super().weights(stats)


class Asking(Right):
    def weights(self, stats):
        torch.distributed.is_initialized()
        return super().weights(stats)


class Global(Right):
    def weights(self, stats):
        return torch.rand_like(stats.losses)


class Forgetful(Right):
    steps = 0

    def commit(self, stats, weights):
        self.steps += 1

    def weights(self, stats):
        return super().weights(stats) * (1 + self.steps)


class Doubles(Right):
    def weights(self, stats):
        return super().weights(stats).double()


class NotLinear(Right):
    linear = True


class TensorReport(Right):
    def weights(self, stats):
        self.report = {"largest": stats.losses.max()}
        return super().weights(stats)


ORDER = "the order of the tasks does not matter"
ALONE = "it knows no process and no model"
WRONG = {
    "it declares what it needs": (OtherNeed, "needs is 'gradients'"),
    "decisions are finite for one task and for three": (
        Infinite,
        "in step 0, where gradients are zero, with a loss of zero, for one task, weights() returns",
    ),
    "one task alone is trained plainly": (Negative, "its weight is -"),
    ORDER: (FirstIsMain, "with the tasks two, one, three the weights are two "),
    "tasks come and go": (AllTasks, "weights() returns (3,) for 2 active tasks"),
    "deciding twice gives the same and changes nothing": (Hasty, "average was changed in place"),
    "it leaves what it is given alone": (Clamping, "stats.losses was changed in place"),
    ALONE: (Asking, "it calls torch.distributed.is_initialized"),
    "random numbers come from stats": (Global, "a decision used torch's global random numbers"),
    "a resumed run decides alike": (Forgetful, "in step 6 the weights are "),
    "float32 losses are enough": (Doubles, "weights() returns torch.float64"),
    "a linear balancer does not look at the losses of its step": (
        NotLinear,
        "other losses give other weights",
    ),
    "its report is made of numbers": (TensorReport, "report has {'largest': tensor("),
}


@pytest.mark.parametrize("balancer", [Right, Projected, Random])
def test_a_right_balancer_passes_every_check(balancer: type) -> None:
    check_balancer(balancer)


def test_options_by_task_are_cut_to_the_tasks_of_a_check() -> None:
    check_balancer(ByTask, shares={"one": 1.0, "two": 0.5, "three": 2.0})


def test_every_check_has_a_wrong_balancer() -> None:
    assert set(WRONG) == own_checks("balancer")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_balancer_is_found(name: str) -> None:
    wrong, text = WRONG[name]
    assert text in fault("balancer", name, wrong)


class Network(Right):
    def __init__(self, tasks, /):
        super().__init__(tasks)
        self.net = nn.Linear(3, 3)


class Ranked(Right):
    def weights(self, stats):
        import os

        return super().weights(stats) * (1 + int(os.environ.get("RANK", "0")))


class Untrained(Right):
    def __init__(self, tasks, /):
        super().__init__(tasks)
        self.logits = nn.Parameter(torch.zeros(len(tasks)))


class WrongColumns(Projected):
    def combine(self, rows_Ap, stats, columns):
        return rows_Ap


@pytest.mark.parametrize(
    ("wrong", "name", "text"),
    [
        (Network, ALONE, "it holds a network: Linear"),
        (Ranked, ALONE, "it decides otherwise where RANK is 1"),
        (Untrained, ORDER, "it has parameters, but param_objective() gives None"),
        (WrongColumns, ORDER, "combine() returns (3, 5) for [A, p] = (3, 5)"),
    ],
)
def test_another_wrong_balancer_is_found(
    monkeypatch: pytest.MonkeyPatch, wrong: type, name: str, text: str
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert text in fault("balancer", name, wrong)


class Waiving(FirstIsMain):
    """The first task counts most."""

    waives: ClassVar = {ORDER: "the first task is the main one"}


def test_a_class_waives_a_check_with_its_reason() -> None:
    check_balancer(Waiving)
    outcomes = conformance.outcomes(conformance.subject("balancer", Waiving, {}))
    waived = [str(outcome) for outcome in outcomes if outcome.status == "waived"]
    assert waived == [f"{ORDER}: the first task is the main one"]
