"""What holds for every balancer that is installed, whatever it does."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from balancer_cases import CONFLICT, Training, build, buildable, tasks_with
from torch import Tensor

from mtlkit import StepStats, registry
from mtlkit.describe import describe
from mtlkit.testing.training import Tasks

pytestmark = pytest.mark.usefixtures("_global_generator_untouched")

ORDER = {
    "gradvac": "visits the tasks in random order",
    "pcgrad": "visits the tasks in random order",
    "rlw": "draws weights for the tasks in their order",
}
"""To whom the order of the tasks matters."""

UNEQUAL = ORDER | {"fixed": "has weights by task id"}
"""Who may weigh two tasks that are alike differently."""

SCALE = {
    "imtl-l": "learns the unit of each loss, and takes its time",
    "moco": "moves its weights by steps that have the unit of the losses",
    "softadapt": "compares slopes, which have the unit of the losses",
    "torchjd": "takes small gradients for zero, as TorchJD does",
    "uncertainty": "learns the unit of each loss, and takes its time",
    "uw-so": "has a temperature in units of 1 / loss",
}
"""To whose direction the unit of all losses matters."""

UNSEEN = {
    "gradnorm": "learns weights that sum to T over all tasks",
    "rlw": "draws weights for all tasks",
}
"""To whom it matters that there are tasks without any label."""

SAME = {
    ("config", "imtl-g"): "both want equal shares along every gradient, but for the length",
    ("dualproj", "torchjd"): "the adapter's example is TorchJD's DualProj",
    ("fairgrad", "nash"): "Nash is FairGrad with alpha 1, its default",
    ("geometric", "log"): "1 / loss, but for a factor that all tasks share",
    ("imtl-l", "uncertainty"): "s has the other sign, and the weights are twice as large",
}
"""Pairs that rightly agree on a direction."""

PAPER = r"(?i)arXiv \d{4}\.\d{4,5}\b|openreview|doi\.org"
"""Where a paper is found."""


def every_balancer(waived: Mapping[str, str] | None = None) -> pytest.MarkDecorator:
    """Parametrise by name; what is waived must really fail."""
    waived = waived or {}
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(
                name,
                marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason=waived[name]),
            )
            if name in waived
            else name
            for name in buildable()
        ],
    )


def close(found: Tensor, expected: Tensor, name: str = "") -> None:
    """Equal up to float64's rounding, or float32's where columns are combined."""
    scale = expected.abs().max().item() or 1.0
    tolerance = 1e-4 if build(name).needs == "columns" else 1e-6
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance)


def unit(vector_P: Tensor) -> Tensor:
    return vector_P / vector_P.norm()


def check_finite(name: str, given: Tasks, active: Sequence[int] | None = None) -> Training:
    """Decides on the very first step and after three; returns the training after six."""
    training = Training(name, given)
    for _ in range(2):
        decision = training.decide(active)
        assert decision.direction_P.isfinite().all(), decision
        assert decision.weights_A.isfinite().all(), decision
        assert len(decision.weights_A) == len(given.ids if active is None else active)
        training.train(3, active)
    return training


@every_balancer(UNEQUAL)
def test_two_tasks_that_are_alike_get_equal_weights(name: str) -> None:
    alike = CONFLICT.select([0, 0, 1])
    weights = check_finite(name, replace(alike, ids=CONFLICT.ids)).decide().weights_A
    close(weights[0], weights[1], name)


@every_balancer()
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("all_of_them", [False, True])
def test_equal_and_opposed_gradients_are_survived(name: str, sign: int, all_of_them: bool) -> None:
    first, second, third = CONFLICT.jacobian_TP
    rows = [first, sign * 2 * first, sign * 3 * first if all_of_them else third]
    check_finite(name, replace(CONFLICT, jacobian_TP=torch.stack(rows)))
    rows = [second, sign * second, sign * second if all_of_them else third]
    check_finite(name, replace(CONFLICT, jacobian_TP=torch.stack(rows)))


@every_balancer()
def test_orthogonal_tasks_do_not_hurt_each_other(name: str) -> None:
    rows = [[2.0, 0, 0, 0, 0], [0, 0.5, -0.5, 0, 0], [0, 0, 0, 3.0, 4.0]]
    given = tasks_with(rows)
    direction = check_finite(name, given).decide().direction_P
    assert (given.jacobian_TP @ direction >= 0).all()
    assert direction.any()


@every_balancer()
@pytest.mark.parametrize("zero", [0, 1, 2])
def test_a_gradient_of_zero_is_survived(name: str, zero: int) -> None:
    rows = CONFLICT.jacobian_TP.clone()
    rows[zero] = 0
    check_finite(name, replace(CONFLICT, jacobian_TP=rows))


@every_balancer()
@pytest.mark.parametrize("losses", [0.0, 1.0])
def test_all_gradients_of_zero_are_survived(name: str, losses: float) -> None:
    rows = torch.zeros_like(CONFLICT.jacobian_TP)
    given = replace(CONFLICT, jacobian_TP=rows, losses_T=CONFLICT.losses_T * losses)
    assert not check_finite(name, given).decide().direction_P.any()


@every_balancer()
def test_gradients_that_come_after_only_zeros_are_survived(name: str) -> None:
    training = check_finite(name, CONFLICT.scaled(0.0))
    training.tasks = CONFLICT
    training.train()
    assert training.decide().direction_P.isfinite().all()


@every_balancer()
@pytest.mark.parametrize("zero", [0, 1, 2])
def test_a_loss_of_zero_is_survived(name: str, zero: int) -> None:
    losses = CONFLICT.losses_T.clone()
    losses[zero] = 0
    check_finite(name, replace(CONFLICT, losses_T=losses))


@every_balancer()
@pytest.mark.parametrize("factor", [1e-6, 1e-4, 1e4, 1e6])
def test_small_and_large_units_are_survived(name: str, factor: float) -> None:
    check_finite(name, CONFLICT.scaled(factor))
    check_finite(name, tasks_with(CONFLICT.jacobian_TP.tolist(), rates_T=torch.full((3,), factor)))
    rows = CONFLICT.jacobian_TP * torch.tensor([[1.0], [factor], [1.0]])
    losses = CONFLICT.losses_T * torch.tensor([1.0, factor, 1.0])
    check_finite(name, replace(CONFLICT, jacobian_TP=rows, losses_T=losses))


@every_balancer(SCALE)
def test_the_unit_of_all_losses_does_not_turn_the_direction(name: str) -> None:
    one = Training(name, CONFLICT).train().decide()
    for factor in (1e-4, 1e4):
        other = Training(name, CONFLICT.scaled(factor)).train().decide()
        close(unit(other.direction_P), unit(one.direction_P), name)


FOUR = tasks_with([*CONFLICT.jacobian_TP.tolist(), [1.0, 0.0, 0.5, 0.0, -2.0]])


@every_balancer(UNSEEN)
def test_tasks_without_any_label_do_not_turn_the_direction(name: str) -> None:
    for active in ([0, 1, 2], [1, 3], [2]):
        found = Training(name, FOUR).train(active=active).decide(active).direction_P
        expected = Training(name, FOUR.select(active)).train().decide().direction_P
        close(unit(found), unit(expected), name)


@every_balancer()
def test_the_last_decision_is_reported_in_numbers(name: str) -> None:
    training = Training(name, CONFLICT).train()
    training.decide()
    report = training.balancer.report
    assert all(isinstance(value, int | float) for value in report.values()), report
    assert not report.get("failures")


def test_different_balancers_go_different_ways() -> None:
    ways = {name: Training(name, CONFLICT).train().decide().direction_P for name in buildable()}
    same = {pair for pair in itertools.combinations(sorted(ways), 2) if _parallel(ways, *pair)}
    expected = {tuple(sorted(pair)) for pair in SAME if set(pair) <= ways.keys()}
    assert same == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_balancer()
def test_losses_on_a_gpu_are_not_waited_for(name: str) -> None:
    training = Training(name, CONFLICT)
    balancer = training.balancer.cuda()
    if balancer.needs != "losses":
        pytest.skip("decides on the CPU")
    for step in range(3):
        stats, _ = training.stats()
        there = StepStats(
            losses=stats.losses.cuda(),
            index=stats.index.cuda(),
            counts=stats.counts.cuda(),
            step=step,
            epoch=0,  # waiting once an epoch is allowed
        )
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            weights = balancer.weights(there)
            balancer.commit(there, weights.detach())
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert weights.device == there.losses.device
        training.step += 1


@pytest.mark.parametrize(
    "name", sorted({c.qualified for c in registry.load().components("balancer")})
)
def test_the_docstring_names_the_paper_and_explains_every_option(name: str) -> None:
    component = next(c for c in registry.load().components("balancer") if c.qualified == name)
    found = describe(component)
    assert found.summary.endswith(".")
    reference = found.sections.get("Reference", "")
    assert re.search(PAPER, reference) or reference.lower().startswith("none")
    assert [option.name for option in found.options if not option.help] == []


def _parallel(ways: Mapping[str, Tensor], one: str, other: str) -> bool:
    return bool((unit(ways[one]) - unit(ways[other])).norm() < 1e-5)
