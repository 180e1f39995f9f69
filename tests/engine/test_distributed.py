"""Several processes decide and do what one process with the whole batch does, on paper."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from accelerate import Accelerator
from balancer_cases import build, buildable
from textbook import textbook
from together import run_together
from torch import nn
from toys import ToyData, toy_model, train_steps

from mtlkit.evaluate import evaluate
from mtlkit.gradients import Rows
from mtlkit.loader import Batches, Prepared
from mtlkit.processes import Processes

TASKS = ("a", "b", "c")
EVERYWHERE = (True,)
SOMETIMES = (True, False, False, False, False, False)
"""On one process and not on the other, in one micro-batch and not in the other."""
NEVER = (False,)


class Case(NamedTuple):
    name: str
    accumulate: int
    labelled: Sequence[bool]
    norm: bool = False
    gradients: str = "parameters"
    recompute: bool = False

    @property
    def batch(self) -> int:
        """Images of one step on all processes: one, two or three can share them out."""
        return 6 * max(2, self.accumulate)


def cases(names: Sequence[str]) -> list[Case]:
    found = []
    for number, name in enumerate(names):
        for accumulate in (1, 2, 4):
            gaps = SOMETIMES if (number + accumulate) % 3 == 0 else EVERYWHERE
            found.append(Case(name, accumulate, gaps))
        found.append(Case(name, 1, EVERYWHERE, norm=True))
    found += [Case("cagrad", n, SOMETIMES, gradients="features") for n in (1, 2)]
    found += [Case(name, 1, EVERYWHERE, True, recompute=True) for name in ("equal", "cagrad")]
    return [*found, Case("equal", 1, NEVER)]


def work(names: Sequence[str], accelerator: Accelerator) -> dict[str, Any]:
    """For every case: parameters and balancer after five steps, and the weights of each."""
    results: dict[str, Any] = {}
    for case in cases(names):
        balancer = build(case.name, TASKS).double()
        model, steps = train_steps(
            accelerator,
            balancer,
            batch_size=case.batch // accelerator.num_processes // case.accumulate,
            accumulate=case.accumulate,
            labelled=case.labelled,
            optimizer=torch.optim.Adam,
            norm=case.norm,
            gradients=case.gradients,
            recompute=case.recompute,
        )
        results[str(case)] = {
            "parameters": [p.detach() for p in model.parameters()],
            "state": dict(balancer.state_dict()),
            "weights": [torch.stack(list(step.weights.values())) for step in steps],
        }
    results["columns"] = columns_kept(accelerator)
    data = ToyData(labelled=(True, False))
    model = toy_model(data.spec)
    prepared = Prepared(data.split("val"), data.spec.targets, model.image_size)
    batches = Batches(
        7, 2, train=False, rank=accelerator.process_index, world=accelerator.num_processes
    )
    loaded = [prepared.collate([prepared[key] for key in keys]) for keys in batches]
    results["evaluation"] = torch.tensor(list(evaluate(model, loaded, accelerator).values()))
    return results


def columns_kept(accelerator: Accelerator) -> torch.Tensor:
    """What is saved of a state that has each column's number in it, and loads again."""
    layer = nn.Linear(5, 3)
    rows, other = (Rows(list(layer.parameters()), 2, Processes.of(accelerator)) for _ in range(2))
    state = rows.state("numbers")
    part = state.shape[1]
    state.copy_(torch.arange(part) + part * accelerator.process_index)
    saved = rows.saved_states()
    other.load_states(saved)
    own = max(0, min(part, 18 - part * accelerator.process_index))
    assert torch.equal(other.state("numbers")[:, :own], state[:, :own])
    return saved["numbers"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_together(partial(work, buildable()), 2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_together(partial(work, THREE), 3, tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return work(buildable(), Accelerator(cpu=True))


THREE = ["equal", "cagrad", "pcgrad", "graddrop", "famo"]


def check(case: Case, ranks: Sequence[dict[str, Any]]) -> None:
    balancer = build(case.name, TASKS).double()
    parameters, decided = textbook(
        balancer,
        batch_size=case.batch,
        labelled=case.labelled,
        norm_parts=len(ranks) if case.norm else 0,
        at_features=case.gradients == "features",
    )
    for rank in ranks:
        found = rank[str(case)]
        for ours, paper in zip(found["weights"], decided, strict=True):
            weights = ours[~ours.isnan()]
            torch.testing.assert_close(weights, paper.to(weights), rtol=1e-9, atol=1e-12)
        for ours, paper in zip(found["parameters"], parameters, strict=True):
            torch.testing.assert_close(ours, paper, rtol=1e-10, atol=1e-12)
        for name, value in balancer.state_dict().items():
            torch.testing.assert_close(found["state"][name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", cases(buildable()), ids=str)
def test_two_processes_do_what_is_on_paper(case: Case, two: list[dict[str, Any]]) -> None:
    check(case, two)


@pytest.mark.parametrize("case", cases(THREE), ids=str)
def test_three_processes_do_what_is_on_paper(case: Case, three: list[dict[str, Any]]) -> None:
    check(case, three)


@pytest.mark.parametrize("case", cases(buildable()), ids=str)
def test_one_process_does_what_is_on_paper(case: Case, one: dict[str, Any]) -> None:
    check(case, [one])


def test_replicas_are_bitwise_alike(two: list[dict[str, Any]]) -> None:
    for case in cases(buildable()):
        for first, second in zip(*(rank[str(case)]["parameters"] for rank in two), strict=True):
            assert torch.equal(first, second), case


def test_a_state_of_columns_is_saved_alike_on_any_number_of_processes(
    one: dict[str, Any], two: list[dict[str, Any]], three: list[dict[str, Any]]
) -> None:
    for results in (one, *two, *three):
        assert results["columns"].tolist() == [list(range(18))] * 2


def test_two_processes_evaluate_like_one(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    for rank in two:
        torch.testing.assert_close(
            rank["evaluation"], one["evaluation"], rtol=1e-6, atol=0, equal_nan=True
        )
