"""A step equals the textbook: one process, one backward of the weighted mean losses."""

from collections.abc import Sequence

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from toys import SIZE, ToyData, toy_model, train_steps

from mtlkit import LossBalancer, StepStats, create
from mtlkit.loader import Batches, Prepared

TASKS = ("a", "b")


class Geometric(LossBalancer):
    """A balancer whose weights need this step's losses."""

    def weights(self, stats: StepStats) -> Tensor:
        mean = stats.losses.log().mean().exp()
        return mean / (len(stats.losses) * stats.losses)


def textbook(weights: Sequence[float], *, labelled: Sequence[bool], steps: int) -> list[Tensor]:
    """Plain PyTorch, on whole batches of 6."""
    data = ToyData(labelled=labelled)
    model = toy_model(data.spec).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    prepared = Prepared(data.split("train"), data.spec.targets, SIZE)
    keys = [key for epoch in range(2) for key in _epoch(epoch)]
    for step in range(steps):
        batch = prepared.collate([prepared[key] for key in keys[step]])
        out = model((batch["image"].double() / 255).float().double())
        total = torch.zeros((), dtype=torch.float64)
        for id, weight in zip(TASKS, weights, strict=True):
            has = batch["present"][id]
            if has.any():
                error = out[id][has] - batch["targets"][id][has].double()
                total = total + weight * error.square().mean()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def _epoch(epoch: int) -> list[list[object]]:
    batches = Batches(24, 6, train=True, seed=3)
    batches.epoch = epoch
    return list(batches)


@pytest.mark.parametrize("labelled", [(True,), (True, False, False)])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_fixed_weights_train_like_the_textbook(accumulate: int, labelled: list[bool]) -> None:
    balancer = create("balancer", "fixed", TASKS, weights={"a": 0.3, "b": 2.0})
    model, _ = train_steps(
        Accelerator(cpu=True), balancer,
        batch_size=6 // accumulate, accumulate=accumulate, labelled=labelled,
    )  # fmt: skip
    expected = textbook([0.3, 2.0], labelled=labelled, steps=5)
    for ours, theirs in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["uncertainty", "dwa"])
def test_accumulation_changes_nothing(name: str) -> None:
    runs = [
        train_steps(
            Accelerator(cpu=True), create("balancer", name, TASKS),
            batch_size=6 // parts, accumulate=parts, labelled=(True, False, False),
        )
        for parts in (1, 3)
    ]  # fmt: skip
    for one, three in zip(*(model.parameters() for model, _ in runs), strict=True):
        torch.testing.assert_close(one, three, rtol=1e-9, atol=1e-12)


def test_weights_that_need_the_losses_are_exact_under_accumulation() -> None:
    runs = [
        train_steps(Accelerator(cpu=True), Geometric(TASKS), batch_size=6 // n, accumulate=n)
        for n in (1, 2)
    ]
    for one, two in zip(*(model.parameters() for model, _ in runs), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_a_task_without_labels_is_not_moved_by_weight_decay() -> None:
    def decay(parameters: object, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.5)  # type: ignore[arg-type]

    model, results = train_steps(
        Accelerator(cpu=True), create("balancer", "equal", TASKS),
        batch_size=6, labelled=(False,), optimizer=decay,  # type: ignore[arg-type]
    )  # fmt: skip
    before = toy_model(ToyData().spec).double()
    for ours, theirs in zip(model.own_parameters("b"), before.own_parameters("b"), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(model.own_parameters("a")[0], before.own_parameters("a")[0])
    assert all(result.losses["b"].isnan() for result in results)


def test_the_balancers_own_parameters_follow_its_objective() -> None:
    balancer = create("balancer", "uncertainty", TASKS)
    _, results = train_steps(Accelerator(cpu=True), balancer, batch_size=6, steps=1)
    mean = torch.stack([results[0].losses["a"], results[0].losses["b"]])
    expected = -0.1 * (0.5 - 0.5 * mean)  # one SGD step of d/ds (exp(-s) L / 2 + s / 2) at 0
    torch.testing.assert_close(balancer.log_variance.double(), expected, rtol=1e-6, atol=0)
