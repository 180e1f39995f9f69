"""Checks of balancers."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, get_args
from unittest.mock import patch

import torch
from torch import Tensor

from mtlkit.balancer import Heads, LossBalancer, Needs
from mtlkit.testing.compare import (
    finite,
    near,
    no_global_random_numbers,
    reloaded,
    unchanged,
)
from mtlkit.testing.conformance import TASKS, Checks, NotApplicable, Subject, expect
from mtlkit.testing.training import CONFLICT, HARD, Training

BASE = LossBalancer
CHECKS = Checks()


def given(subject: Subject) -> tuple[Any, ...]:
    """What the framework gives to a balancer."""
    return (TASKS,)


@CHECKS.add(
    why="The framework computes what a balancer needs, and nothing else.",
    mend='Set needs to "losses", "gramian" or "columns" and heads to "weighted" or "raw".',
)
def _it_declares_what_it_needs(subject: Subject) -> None:
    balancer: LossBalancer = subject.build()
    expect(balancer.needs in get_args(Needs), f"needs is {balancer.needs!r}")
    expect(balancer.heads in get_args(Heads), f"heads is {balancer.heads!r}")
    expect(
        balancer.tasks == TASKS, f"tasks is {balancer.tasks!r}: pass it on to super().__init__()"
    )


@CHECKS.add(
    why="A weight that is not finite ends the run.",
    mend="Divide by what is clamped from below, and handle gradients and losses of zero.",
)
def _decisions_are_finite_for_one_task_and_for_three(subject: Subject) -> None:
    cases = {"usual": CONFLICT, "of a single task": CONFLICT.select([1]), **HARD}
    for name, tasks in cases.items():
        training = Training(subject, tasks)
        for _ in range(2):
            direction_P, weights_A = training.decide()
            where = f"in step {training.step}, where gradients are {name},"
            expect(finite(weights_A), f"{where} weights() returns {weights_A.tolist()}")
            expect(finite(direction_P), f"{where} combine() returns {direction_P.tolist()}")
            training.train(3)


@CHECKS.add(
    why="With one task there is nothing to balance: the run must equal plain training, but for the "
    "length of the step.",
    mend="Make weights() return one positive number when one task is active.",
)
def _one_task_alone_is_trained_plainly(subject: Subject) -> None:
    tasks = CONFLICT.select([1])
    training = Training(subject, tasks).train()
    direction_P, weights_A = training.decide()
    expect(weights_A.item() > 0, f"its weight is {weights_A.item():.6g}")
    found, expected = (x / x.norm() for x in (direction_P, tasks.jacobian_TP[0]))
    expect(near(found, expected, 1e-4), "the step does not go along the task's gradient")


@CHECKS.add(
    why="Users name tasks in any order, and expect the same run.",
    mend="Treat all rows alike, and look up what belongs to a task by stats.index. A method that "
    "must prefer some position waives this.",
)
def _the_order_of_the_tasks_does_not_matter(subject: Subject) -> None:
    training = Training(subject)
    if training.balancer.needs != "columns" and _draws(subject):
        raise NotApplicable("it draws random numbers for the tasks in their order")
    expected = training.train().decide()
    for order in ([1, 0, 2], [1, 2, 0], [2, 1, 0]):
        found = Training(subject, CONFLICT.select(order)).train().decide()
        names = ", ".join(TASKS[i] for i in order)
        fault = f"with the tasks {names} the weights are {_by_task(found.weights_A, order)}, and"
        same = near(found.weights_A, expected.weights_A[order], training.tolerance)
        expect(same, f"{fault} in their usual order {_by_task(expected.weights_A, range(3))}")
        same = near(found.direction_P, expected.direction_P, training.tolerance)
        expect(same, f"with the tasks {names} the step goes another way")


@CHECKS.add(
    why="A step may have no label of a task; stats then has the others alone.",
    mend="Keep state for all tasks and read and write it at stats.index; return [A] weights.",
)
def _tasks_come_and_go(subject: Subject) -> None:
    training = Training(subject)
    for active in ([0, 2], [1], [0, 1, 2], [2, 1]):
        direction_P, weights_A = training.decide(sorted(active))
        good = finite(weights_A) and finite(direction_P)
        expect(good, f"with the active tasks {sorted(active)} the weights are {weights_A.tolist()}")
        training.train(2, sorted(active))


@CHECKS.add(
    why="The framework may ask twice, and leaves out a step whose gradients are not finite.",
    mend="Let weights() and combine() read state alone; write it in commit() or revisit(), and "
    "columns' state in combine().",
)
def _deciding_twice_gives_the_same_and_changes_nothing(subject: Subject) -> None:
    training = Training(subject).train(2)
    stats, rows_AP = training.stats()
    training.decide_on(stats, rows_AP)  # a combine() may write state, once
    with unchanged(training.balancer.state_dict()):
        first, second = (training.balancer.weights(stats).detach() for _ in range(2))
    same = torch.equal(first, second)
    expect(same, f"weights() returns {first.tolist()}, then {second.tolist()}")


@CHECKS.add(
    why="Other parts of the step use the same tensors.",
    mend="Write to none of the tensors in `stats`, and clone what is kept.",
)
def _it_leaves_what_it_is_given_alone(subject: Subject) -> None:
    training = Training(subject)
    for _ in range(2):
        stats, rows_AP = training.stats()
        tensors = {f"stats.{k}": v for k, v in vars(stats).items() if isinstance(v, Tensor)}
        with unchanged(tensors), torch.no_grad():
            weights = training.decide_on(stats, rows_AP).weights_A
            with unchanged({"the weights given to commit()": weights}):
                training.balancer.commit(stats, weights)
        training.step += 1


@CHECKS.add(
    why="Every process must come to the same decision, from numbers that are already global; a "
    "balancer that talks to others hangs, and one that asks who it is diverges.",
    mend="Use nothing but the tasks' ids, the options, `stats` and own state.",
)
def _it_knows_no_process_and_no_model(subject: Subject) -> None:
    holds = [type(m).__name__ for m in subject.build().modules() if not _of_balancers(m)]
    expect(not holds, f"it holds a network: {', '.join(holds[:3])}")
    with _watched() as asked:
        one = Training(subject).train().decide()
    expect(not asked, f"it calls torch.distributed.{', '.join(sorted(set(asked)))}")
    with patch.dict(os.environ, {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}):
        other = Training(subject).train().decide()
    expect(torch.equal(one.weights_A, other.weights_A), "it decides otherwise where RANK is 1")


@CHECKS.add(
    why="The global random numbers differ between processes, and are not in the balancer's state.",
    mend="Draw from stats.rng(salt), which is the same on every process.",
)
def _random_numbers_come_from_stats(subject: Subject) -> None:
    training = Training(subject)
    with no_global_random_numbers("a decision"):
        training.train(2)
    again = Training(subject).train(2).decide().weights_A
    expect(torch.equal(training.decide().weights_A, again), "the same training decides otherwise")


@CHECKS.add(
    why="A resumed run must go on as if it had not been interrupted.",
    mend="Keep all that later steps need in buffers (register_buffer) and parameters, not in plain "
    "attributes.",
)
def _a_resumed_run_decides_alike(subject: Subject) -> None:
    training, resumed = Training(subject).train(), Training(subject)
    tree = {"state": training.balancer.state_dict(), "columns": training.columns.states}
    tree = reloaded(tree)
    resumed.balancer.load_state_dict(tree["state"])
    resumed.columns.states, resumed.step = tree["columns"], training.step
    for _ in range(3):
        found, expected = resumed.decide().weights_A, training.decide().weights_A
        fault = f"in step {training.step} the weights are {found.tolist()} after resuming, and"
        expect(torch.equal(found, expected), f"{fault} {expected.tolist()} without")
        training.train(1)
        resumed.train(1)


@CHECKS.add(
    why="Losses of balancers that need nothing else stay on the device, in float32.",
    mend="Bring state to the losses with .to(stats.losses).",
)
def _float32_losses_are_enough(subject: Subject) -> None:
    training = Training(subject).train(2)
    if training.balancer.needs != "losses":
        raise NotApplicable("it is given float64")
    stats, _ = training.stats()
    halved = replace(stats, losses=stats.losses.float(), counts=stats.counts.float())
    found, expected = (training.balancer.weights(s).detach() for s in (halved, stats))
    expect(found.dtype == torch.float32, f"weights() returns {found.dtype}")
    expect(near(found, expected, 1e-4), f"weights are {found.tolist()}, not {expected.tolist()}")


@CHECKS.add(
    why="With linear = True the weighted losses go back before they are known everywhere.",
    mend="Set linear = True only if weights() does not read stats.losses.",
)
def _a_linear_balancer_does_not_look_at_the_losses_of_its_step(subject: Subject) -> None:
    training = Training(subject).train()
    if not training.balancer.linear:
        raise NotApplicable("it is not linear")
    stats, _ = training.stats()
    blind = replace(stats, losses=torch.full_like(stats.losses, 5.0))
    found, expected = (training.balancer.weights(s).detach() for s in (blind, stats))
    expect(torch.equal(found, expected), "other losses give other weights")


@CHECKS.add(
    why="The report is written to metrics.jsonl.",
    mend="Put plain numbers into self.report.",
)
def _its_report_is_made_of_numbers(subject: Subject) -> None:
    training = Training(subject).train(2)
    training.decide()
    odd = {k: v for k, v in training.balancer.report.items() if not isinstance(v, int | float)}
    expect(not odd, f"report has {odd}")


def _draws(subject: Subject) -> bool:
    training = Training(subject)
    stats, rows_AP = training.stats()
    training.decide_on(stats, rows_AP)
    return hasattr(stats, "drawn")


def _by_task(weights_A: Tensor, order: Sequence[int]) -> str:
    return ", ".join(f"{TASKS[i]} {w:.4g}" for i, w in zip(order, weights_A.tolist(), strict=True))


def _of_balancers(module: torch.nn.Module) -> bool:
    """Whether a module is no layer of a network: a balancer, or a container of its parameters."""
    containers = (LossBalancer, torch.nn.ParameterList, torch.nn.ParameterDict)
    return isinstance(module, containers) or not list(module.parameters(recurse=False))


@contextmanager
def _watched() -> Iterator[list[str]]:
    """The names of the functions of torch.distributed that are called meanwhile."""
    asked: list[str] = []

    def watch(name: str) -> Any:
        real = getattr(torch.distributed, name)

        def watched(*args: Any, **options: Any) -> Any:
            asked.append(name)
            return real(*args, **options)

        return patch.object(torch.distributed, name, watched)

    names = (
        "is_initialized",
        "get_rank",
        "get_world_size",
        "all_reduce",
        "all_gather",
        "broadcast",
    )
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(watch(name))
        yield asked
