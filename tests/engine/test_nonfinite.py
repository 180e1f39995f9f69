"""A loss or gradient that is not finite is named with its samples and stays out of the network."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from together import run_together
from torch import Tensor
from toys import SIZE, Regress, ToyData, toy_model

from mtlkit import Model, create
from mtlkit.balancing import Balancing
from mtlkit.errors import RunError
from mtlkit.loader import Key, Prepared
from mtlkit.model import TaskBatch
from mtlkit.nonfinite import save_batch
from mtlkit.sharing import find_sharing
from mtlkit.step import Step

TASKS = ("a", "b", "c")
Optimizer = Callable[..., torch.optim.Optimizer]


class Rooted(Regress):
    """Its loss is finite everywhere; its gradient is not where the target is NaN."""

    def loss(self, prediction: Tensor, target: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        bad = target.isnan().any(1) & present
        plain, count = super().loss(prediction, target.nan_to_num(), present)
        root = torch.where(bad[:, None], prediction * 0, torch.ones_like(prediction)).sqrt()
        return plain + (root - root.detach()).sum(), count


def setting(
    balancer: str = "equal", *, policy: str = "raise", optimizer: Optimizer = torch.optim.SGD,
    accelerator: Accelerator | None = None, **options: Any,
) -> tuple[Step, Model]:  # fmt: skip
    accelerator = accelerator or Accelerator(cpu=True)
    model = toy_model(ToyData().spec, TASKS, norm=True).double()
    decides = create("balancer", balancer, TASKS)
    parameters = [*model.parameters(), *decides.parameters()]
    prepared = accelerator.prepare_optimizer(optimizer(parameters, lr=0.1))
    step = Step(
        accelerator, model, Balancing(decides), prepared, find_sharing(model),
        on_nonfinite=policy, **options,
    )  # fmt: skip
    return step, model


def batch(
    model: Model, numbers: Sequence[int] = range(6), *, bad: Sequence[int] = (), task: str = "b"
) -> TaskBatch:
    """Samples of the toy; the targets of ``bad`` ones are NaN for one task."""
    data = ToyData()
    prepared = Prepared(data.split("train"), data.spec.targets, SIZE)
    made = model.prepare(prepared.collate([prepared[Key(0, n, True)] for n in numbers]))
    made.inputs[:] = [images.double() for images in made.inputs]
    made.targets[:] = [target.double() for target in made.targets]
    for number in bad:
        made.targets[TASKS.index(task)][list(numbers).index(number)] = float("nan")
    return made


def state(step: Step, model: Model) -> dict[str, Any]:
    """All that a step may change."""
    inner = step.optimizer.optimizer
    tensors = {
        **model.state_dict(),
        **step.balancing.state_dict(prefix="balancing."),
        **step.state(),
    }
    for i, values in enumerate(inner.state.values()):
        tensors |= {f"{i}.{k}": v for k, v in values.items() if isinstance(v, Tensor)}
    return {name: value.clone() for name, value in tensors.items()}


def assert_equal(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name].nan_to_num(7), two[name].nan_to_num(7)), name


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("equal", {}),
    ("uncertainty", {}),
    ("geometric", {}),
    ("mgda", {}),
    ("mgda", {"gradients": "features"}),
    ("moco", {}),
    ("equal", {"clip": 1.0}),
]


@pytest.mark.parametrize(("balancer", "options"), WAYS)
@pytest.mark.parametrize("kind", [Regress, Rooted])
def test_task_step_and_samples_are_named_and_nothing_moves(
    balancer: str, options: dict[str, Any], kind: type[Regress]
) -> None:
    step, model = setting(balancer, **options)
    model.tasks["b"] = kind("b", ToyData().spec, SIZE)
    step.tasks = tuple(model.tasks.values())
    step([batch(model)], step=6, epoch=0)
    before = [p.clone() for p in model.parameters()]
    what = "loss" if kind is Regress else "gradient"
    with pytest.raises(RunError) as caught:
        step([batch(model, bad=[2, 4])], step=7, epoch=0)
    assert str(caught.value) == (
        f"the {what} of task 'b' is not finite at step 7 for the samples 002, 004; try a lower "
        "--lr, --clip 1, or --precision no"
    )
    for ours, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(ours, was)


@pytest.mark.parametrize(("balancer", "options"), WAYS)
def test_a_step_that_is_skipped_leaves_no_trace(balancer: str, options: dict[str, Any]) -> None:
    step, model = setting(balancer, policy="skip", optimizer=torch.optim.AdamW, **options)
    step([batch(model)], step=0, epoch=0)
    before = state(step, model)
    result = step([batch(model, bad=[1])], step=1, epoch=0)
    assert_equal(state(step, model), before)
    assert result.faults == {"b": "loss"}
    assert all(value.isnan() for value in (*result.losses.values(), *result.weights.values()))
    again, other = setting(balancer, policy="skip", optimizer=torch.optim.AdamW, **options)
    again([batch(other)], step=0, epoch=0)
    step([batch(model, range(6, 12))], step=2, epoch=0)
    again([batch(other, range(6, 12))], step=2, epoch=0)
    assert_equal(state(step, model), state(again, other))


@pytest.mark.parametrize(("balancer", "options"), WAYS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_task_that_is_dropped_is_as_if_it_had_no_labels(
    balancer: str, options: dict[str, Any], accumulate: int
) -> None:
    def window(model: Model, *, bad: bool) -> list[TaskBatch]:
        made = [batch(model, range(6 * i, 6 * i + 6)) for i in range(accumulate)]
        for i, one in enumerate(made):
            if bad and i == 0:
                one.targets[1][3] = float("nan")
            elif not bad:
                one.present[1].zero_()
                one.labelled[1] = False
        return made

    ended = []
    for bad in (True, False):
        step, model = setting(balancer, policy="drop-task", accumulate=accumulate, **options)
        result = step(window(model, bad=bad), step=0, epoch=0)
        assert result.faults == ({"b": "loss"} if bad else {})
        assert result.losses["b"].isnan()
        assert result.losses["a"].isfinite()
        ended.append(state(step, model))
    assert_equal(*ended)


def test_when_every_task_is_at_fault_the_step_is_left_out() -> None:
    step, model = setting(policy="drop-task")
    before = state(step, model)
    made = batch(model)
    made.inputs[0][0] = float("nan")
    result = step([made], step=0, epoch=0)
    assert set(result.faults) == set(TASKS)
    assert_equal(state(step, model), before)


@pytest.mark.parametrize("policy", ["skip", "drop-task"])
def test_ten_steps_in_a_row_are_enough(policy: str) -> None:
    step, model = setting(policy=policy)
    for number in range(3, 13):
        step([batch(model, bad=[0])], step=number, epoch=0)
    with pytest.raises(RunError, match=r"at step 13 for the sample 000, as in the 10 steps before"):
        step([batch(model, bad=[0])], step=13, epoch=0)


def test_ten_steps_with_good_ones_between_go_on() -> None:
    step, model = setting(policy="skip")
    for number in range(30):
        step([batch(model, bad=[0] if number % 3 else [])], step=number, epoch=0)


def fused(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, fused=True)


def test_where_waiting_costs_the_step_is_left_out_at_once_and_named_at_the_next() -> None:
    step, model = setting(optimizer=fused)
    step.watch.deferred = True
    step([batch(model)], step=0, epoch=0)
    before = [p.clone() for p in model.parameters()]
    step([batch(model, bad=[5])], step=1, epoch=0)
    for ours, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(ours, was)
    with pytest.raises(RunError, match="'b' is not finite at step 1 for the sample 005"):
        step([batch(model)], step=2, epoch=0)


def test_what_is_open_is_settled_when_asked() -> None:
    step, model = setting(optimizer=fused)
    step.watch.deferred = True
    step([batch(model)], step=0, epoch=0)
    step.settle()
    step([batch(model, bad=[5], task="c")], step=1, epoch=0)
    with pytest.raises(RunError, match="task 'c' is not finite at step 1"):
        step.settle()
    step.settle()


def on_two(accelerator: Accelerator) -> Any:
    """A fault on the second process alone, under each policy; what it led to."""
    first = 6 * accelerator.process_index
    said, ended = [], []
    for balancer in ("equal", "mgda"):
        for policy in ("raise", "skip", "drop-task"):
            step, model = setting(balancer, policy=policy, accelerator=accelerator)
            bad = [8] if accelerator.process_index else []
            try:
                step([batch(model, range(first, first + 6), bad=bad)], step=0, epoch=0)
                said.append("")
            except RunError as error:
                said.append(str(error))
            ended.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    return {"said": said, "ended": ended}


@pytest.mark.slow
def test_all_processes_decide_alike_about_a_fault_on_one(tmp_path: Path) -> None:
    one, two = run_together(on_two, 2, tmp_path)
    assert one["said"] == two["said"]
    assert [said.partition(";")[0] for said in one["said"]] == [
        "the loss of task 'b' is not finite at step 0 for the sample 008", "", "",
    ] * 2  # fmt: skip
    for ours, theirs in zip(one["ended"], two["ended"], strict=True):
        assert torch.equal(ours, theirs)
        assert ours.isfinite().all()
    assert torch.equal(one["ended"][0], one["ended"][1])  # raised, skipped
    assert not torch.equal(one["ended"][1], one["ended"][2])


def test_the_batch_is_kept(tmp_path: Path) -> None:
    _, model = setting()
    made = batch(model, bad=[3])
    save_batch(tmp_path / "bad.safetensors", made, TASKS, step=12)
    with safe_open(tmp_path / "bad.safetensors", "pt") as file:
        assert file.metadata() == {"step": "12", "ids": json.dumps([f"00{i}" for i in range(6)])}
        assert set(file.keys()) == {
            "input.0", *(f"{id}.{what}" for id in TASKS for what in ("target", "present"))
        }  # fmt: skip
        assert torch.equal(file.get_tensor("input.0"), made.inputs[0])
        assert file.get_tensor("b.target")[3].isnan().all()
