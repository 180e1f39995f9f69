"""Bench: what balancers and single-task networks cost, on the user's own network and data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from mtlkit import api, measure, registry
from mtlkit.balancer import LossBalancer
from mtlkit.build import build_engine, create
from mtlkit.config import DEFAULTS
from mtlkit.data import Dataset
from mtlkit.errors import ConfigError, RunError
from mtlkit.measure import Cost, Work
from mtlkit.model import TaskBatch
from mtlkit.options import required
from mtlkit.session import Run
from mtlkit.settings import Choice, Config
from mtlkit.source import spell
from mtlkit.step import Step
from mtlkit.train import windows

BASELINE = DEFAULTS["balancer"]
TOGETHER, SUM = "together", "sum of these"


def bench(
    config: Config,
    names: Sequence[str] | None,
    *,
    rounds: int,
    output: Path | None = None,
    command: str = "",
) -> dict[str, dict[str, Any]]:
    """Measure balancers in turn, round after round, print a table, and return the numbers.

    Args:
        config: of the run whose steps are measured; its balancer keeps its options.
        names: of the other balancers, with their defaults; None takes all that can be used.
        rounds: turns of each balancer.
        output: JSON file for the numbers.
        command: what the user typed, for that file.

    Raises:
        ConfigError: a balancer that was named cannot be used, or the file not written.
    """
    _check_output(output)
    run = _assemble(config)
    window = _window(run)
    named = [BASELINE, config.balancer.name, *(names or ())]
    wanted = dict.fromkeys([*named, *(registry.load().names("balancer") if names is None else ())])
    balancers = {}
    for name in wanted:
        try:
            balancers[name] = _balancer(name, run)
            _engine(run, balancers[name])(window, step=0, epoch=0)
        except (ConfigError, RunError) as error:
            if name in named:
                raise
            balancers.pop(name, None)
            run.say(f"left out {name}: {error}")
    costs = compare(run, balancers, window, rounds)
    passes = {name: _passes(run, balancer, window) for name, balancer in balancers.items()}
    by_direction = {
        way: {name: found[way] for name, found in passes.items()} for way in ("forward", "backward")
    }
    print(measure.table(costs, BASELINE, by_direction))
    found = measure.numbers(costs, BASELINE)
    for name in found:
        found[name] |= {f"{way}_passes": number for way, number in passes[name].items()}
    if output:
        tree = {"config": run.config, "balancers": found}
        measure.write(output, command, run.accelerator.device, tree)
    return found


def compare(
    run: Run, balancers: Mapping[str, LossBalancer], window: Sequence[TaskBatch], rounds: int
) -> dict[str, Cost]:
    """The cost of each balancer's steps, next to the baseline's.

    A measured turn holds every kind of step that the settings make; what is returned is the time of
    one step.
    """
    makers = {name: partial(_steps, run, b, window) for name, b in balancers.items()}
    costs = measure.in_turns(makers, BASELINE, rounds=rounds, device=run.accelerator.device)
    for cost in costs.values():
        cost.seconds = [seconds / _period(run) for seconds in cost.seconds]
        cost.baseline_seconds = [seconds / _period(run) for seconds in cost.baseline_seconds]
    return costs


def _period(run: Run) -> int:
    """Steps after which the kinds of steps come again."""
    return math.lcm(run.settings.balance_every, run.settings.conflict_every or 1)


def _steps(run: Run, balancer: LossBalancer, window: Sequence[TaskBatch]) -> Work:
    """A new engine, that does a step of each kind."""
    engine, number = _engine(run, balancer), count()

    def work() -> None:
        for _ in range(_period(run)):
            engine(window, step=next(number), epoch=0)

    return work


def _passes(run: Run, balancer: LossBalancer, window: Sequence[TaskBatch]) -> dict[str, float]:
    """Through the network, per step."""
    engine, steps = _engine(run, balancer), range(_period(run))
    results = [engine(window, step=step, epoch=0) for step in steps]
    backward = sum(result.backward_passes for result in results) / len(steps)
    return {"forward": len(window) * (1 + balancer.revisits), "backward": backward}


def bench_alone(
    config: Config,
    *,
    predict: bool,
    rounds: int,
    output: Path | None = None,
    command: str = "",
) -> dict[str, dict[str, Any]]:
    """Measure one network for all tasks against one for each; print a table, return the numbers.

    Args:
        config: of the run with all tasks; the networks for one task have its options too, and the
            plain sum in the place of its balancer.
        predict: measure forward passes; otherwise optimiser steps.
        rounds: turns of each network.
        output: JSON file for the numbers.
        command: what the user typed, for that file.

    Raises:
        ConfigError: there is but one task, or the file cannot be written.
    """
    _check_output(output)
    if len(config.tasks) < 2:
        raise ConfigError("there is one task alone; name several by --tasks A,B,...")
    together = _assemble(config)
    unbalanced = replace(
        config.settings, gradients="parameters", heads=None, losses="raw", smooth=0.0,
        balancer_scale="none", balance_every=1, conflict_every=0,
    )  # fmt: skip
    plain = replace(config, balancer=Choice(BASELINE), settings=unbalanced)
    runs = {TOGETHER: together}
    for id, choice in config.tasks.items():
        runs[f"{id} alone"] = _assemble(replace(plain, tasks={id: choice}), together.dataset)
    costs, images = compare_networks(runs, predict=predict, rounds=rounds)
    parameters = {
        name: sum(p.numel() for p in run.model.parameters()) for name, run in runs.items()
    }
    parameters[SUM] = sum(parameters.values()) - parameters[TOGETHER]
    found = measure.numbers(costs, TOGETHER)
    for name, numbers in found.items():
        numbers["parameters"] = parameters[name]
        numbers["images_per_second"] = 1000 * images / numbers["milliseconds"]
    shown = {
        "images/s": {name: f"{n['images_per_second']:.1f}" for name, n in found.items()},
        "parameters": {name: f"{number:,}" for name, number in parameters.items()},
    }
    print(measure.table(costs, TOGETHER, shown))
    if output:
        tree = {"config": together.config, "networks": found}
        measure.write(output, command, together.accelerator.device, tree)
    return found


def compare_networks(
    runs: Mapping[str, Run], *, predict: bool, rounds: int
) -> tuple[dict[str, Cost], int]:
    """The cost of each run's forward passes or steps, of their sum, and the images in one.

    Memory is what a network and its optimiser hold and the most that is on top of it at a time.
    """
    used = {name: _window(run) for name, run in runs.items()}
    makers = {
        name: partial(_forward, run, used[name][0])
        if predict
        else partial(_steps, run, run.balancer, used[name])
        for name, run in runs.items()
    }
    for make in makers.values():
        make()()  # what an optimiser holds is there from now on
    whole, *alone = runs
    costs = measure.in_turns(makers, whole, rounds=rounds, device=runs[whole].accelerator.device)
    period = 1 if predict else _period(runs[whole])
    for cost in costs.values():
        cost.baseline_seconds = [seconds / period for seconds in cost.baseline_seconds]
    costs[whole].seconds = [seconds / period for seconds in costs[whole].seconds]
    total = Cost(
        [sum(turn) for turn in zip(*(costs[name].seconds for name in alone), strict=True)],
        [
            mean(turn)
            for turn in zip(*(costs[name].baseline_seconds for name in alone), strict=True)
        ],
    )
    held = {name: _held(run, predict) for name, run in runs.items()}
    peaks = {name: cost.peak_bytes for name, cost in costs.items() if cost.peak_bytes is not None}
    if peaks:
        total.peak_bytes = sum(held[name] for name in alone) + max(peaks[name] for name in alone)
    for name, peak in peaks.items():
        costs[name].peak_bytes = held[name] + peak
    images = sum(len(batch.inputs[0]) for batch in (used[whole][:1] if predict else used[whole]))
    return {**costs, SUM: total}, images


def _forward(run: Run, batch: TaskBatch) -> Work:
    network = torch.compile(run.model) if run.settings.compile else run.model
    run.model.eval()

    @torch.inference_mode()
    def work() -> None:
        with run.accelerator.autocast():
            network(*batch.inputs)

    return work


def _held(run: Run, predict: bool) -> int:
    """Bytes of the network, and of its optimiser's state if it is trained."""
    tensors = [*run.model.parameters(), *run.model.buffers()]
    if not predict:
        states = run.optimizer.state.values()
        tensors += [v for state in states for v in state.values() if isinstance(v, Tensor)]
    return sum(tensor.nbytes for tensor in tensors)


def _check_output(output: Path | None) -> None:
    if output and not output.absolute().parent.is_dir():
        raise ConfigError(f"cannot write {output}: there is no folder {output.parent}")


def _window(run: Run) -> Sequence[TaskBatch]:
    """Batches of one step."""
    window = next(windows(run.loader("train", train=True), run.model, run.settings), None)
    if window is None:
        raise ConfigError("the data has no training sample to measure with")
    return window


def _assemble(config: Config, dataset: Dataset | None = None) -> Run:
    """The parts of a run that writes nothing, and whose steps are all alike: they move nothing."""
    settings = replace(
        config.settings, lr=0.0, workers=0, log_with=(), output=None, resume=False, monitor=None
    )
    run = api.assemble(replace(config, settings=settings), dataset)
    if run.accelerator.num_processes > 1:
        raise ConfigError("steps are measured on one process; start this without a launcher")
    run.model.train()
    return run


def _balancer(name: str, run: Run) -> LossBalancer:
    """The run's own, or another with its defaults, whose parameters join the optimiser's."""
    if name == run.config["balancer"]["name"]:
        return run.balancer
    missing = sorted(required(registry.load().find("balancer", name).load()))
    if missing:
        words = " and ".join(f"--balancer.{spell(option)}" for option in missing)
        raise ConfigError(f"balancer '{name}' needs {words}; name it with --balancer {name}")
    balancer: LossBalancer = create("balancer", Choice(name), tuple(run.model.tasks))
    learned = [p for p in balancer.parameters() if p.requires_grad]
    if learned:
        run.optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
    return balancer


def _engine(run: Run, balancer: LossBalancer) -> Step:
    return build_engine(
        run.settings, run.accelerator, run.model, balancer, run.optimizer, run.engine.sharing
    )
