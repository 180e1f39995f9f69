"""Bench: what each balancer costs on the user's own network and data, against the plain sum."""

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mtlkit import api, registry
from mtlkit.balancer import LossBalancer
from mtlkit.build import build_engine, create
from mtlkit.config import DEFAULTS
from mtlkit.errors import ConfigError, RunError
from mtlkit.model import TaskBatch
from mtlkit.options import required
from mtlkit.run import environment
from mtlkit.session import Run
from mtlkit.settings import Choice, Config
from mtlkit.source import spell
from mtlkit.step import Step, StepResult
from mtlkit.train import windows

BASELINE = DEFAULTS["balancer"]
MIB = 2**20


@dataclass
class Cost:
    """What the steps of one balancer cost.

    Args:
        seconds: of a step, by round.
        baseline_seconds: of the baseline's step, measured just before it.
        peak_bytes: of tensors in a step, above what is held before it; None where it is unknown.
        backward_passes: through the network, per step.
        forward_passes: likewise.
    """

    seconds: list[float] = field(default_factory=list)
    baseline_seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    backward_passes: float = 0.0
    forward_passes: float = 0.0


def bench(
    config: Config, names: Sequence[str] | None, *, rounds: int, output: Path | None, command: str
) -> None:
    """Measure balancers in turn, round after round, and print a table.

    Args:
        config: of the run whose steps are measured; its balancer keeps its options.
        names: of the other balancers, with their defaults; None takes all that can be used.
        rounds: turns of each balancer.
        output: JSON file for the numbers.
        command: what the user typed, for that file.

    Raises:
        ConfigError: a balancer that was named cannot be used, or the file not written.
    """
    if output and not output.absolute().parent.is_dir():
        raise ConfigError(f"cannot write {output}: there is no folder {output.parent}")
    run = _assemble(config)
    window = next(windows(run.loader("train", train=True), run.model, run.settings), None)
    if window is None:
        raise ConfigError("the data has no training sample to measure with")
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
    costs = measure(run, balancers, window, rounds)
    print(table(costs))
    if output:
        _write(output, run, costs, command)


def measure(
    run: Run, balancers: Mapping[str, LossBalancer], window: Sequence[TaskBatch], rounds: int
) -> dict[str, Cost]:
    """The cost of each balancer's steps; they take turns, each next to a turn of the baseline.

    Every turn has an engine of its own, so that no balancer's memory stays while another is
    measured, and holds every kind of step that the settings make.
    """
    settings = run.settings
    steps = math.lcm(settings.balance_every, settings.conflict_every or 1)
    costs = {name: Cost() for name in balancers}
    plain = partial(_engine(run, balancers[BASELINE]), window, epoch=0)
    for turn in range(rounds):
        first = 1 + turn * (steps + 1)
        for name, balancer in balancers.items():
            cost, step = costs[name], partial(_engine(run, balancer), window, epoch=0)
            if turn == 0:
                cost.peak_bytes = peak_bytes(run.accelerator.device, partial(step, step=first))
            else:
                step(step=first)
            seconds, _ = _timed(run, plain, range(first, first + steps))
            cost.baseline_seconds.append(seconds)
            seconds, results = _timed(run, step, range(first + 1, first + 1 + steps))
            cost.seconds.append(seconds)
            cost.backward_passes = sum(result.backward_passes for result in results) / steps
            cost.forward_passes = len(window) * (1 + balancer.revisits)
    return costs


def _timed(
    run: Run, step: Callable[..., StepResult], numbers: range
) -> tuple[float, list[StepResult]]:
    """Seconds of a step."""
    _wait(run)
    start = time.perf_counter()
    results = [step(step=number) for number in numbers]
    _wait(run)
    return (time.perf_counter() - start) / len(numbers), results


def peak_bytes(device: torch.device, step: Callable[[], object]) -> int | None:
    """The most that the tensors of a step take at a time, above what is held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - held
    if device.type == "cpu":
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it talks of its own start and end
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            step()
        events = profiler.profiler.kineto_results.events()
        changes = [event for event in events if event.name() == "[memory]"]
        changes.sort(key=lambda event: event.start_ns())
        return max(accumulate(event.nbytes() for event in changes), default=0)
    step()
    return None


def table(costs: Mapping[str, Cost]) -> str:
    """Each cost, and its ratio to the baseline's."""
    rows = [("", "step", f"x {BASELINE}", "", "memory", f"x {BASELINE}", "forward", "backward")]
    for name, cost in costs.items():
        numbers = summary(cost, costs[BASELINE])
        low, high = numbers["quartiles"]
        memory = ("-", "-")
        if cost.peak_bytes is not None:
            ratio = f"{numbers['memory_ratio']:.2f}"
            memory = (f"{cost.peak_bytes / MIB:.0f} MiB", ratio)
        rows.append((
            name, f"{numbers['milliseconds']:.1f} ms", f"{numbers['ratio']:.2f}",
            f"({low:.2f} to {high:.2f})", *memory,
            f"{cost.forward_passes:g}", f"{cost.backward_passes:g}",
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            word.rjust(width) if number else word.ljust(width)
            for number, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def summary(cost: Cost, baseline: Cost) -> dict[str, Any]:
    """Medians over the rounds."""
    pairs = zip(cost.seconds, cost.baseline_seconds, strict=True)
    ratios = sorted(seconds / plain for seconds, plain in pairs)
    quarter = len(ratios) // 4
    known = cost.peak_bytes is not None and baseline.peak_bytes
    return {
        "milliseconds": 1000 * statistics.median(cost.seconds),
        "ratio": statistics.median(ratios),
        "quartiles": [ratios[quarter], ratios[-1 - quarter]],
        "memory_ratio": cost.peak_bytes / baseline.peak_bytes if known else None,  # type: ignore[operator]
    }


def _assemble(config: Config) -> Run:
    """The parts of a run that writes nothing, and whose steps are all alike: they move nothing."""
    settings = replace(config.settings, lr=0.0, workers=0, log_with=(), output=None, resume=False)
    run = api._assemble(replace(config, settings=settings))
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


def _wait(run: Run) -> None:
    if run.accelerator.device.type != "cpu":
        torch.accelerator.synchronize(run.accelerator.device)


def _write(output: Path, run: Run, costs: Mapping[str, Cost], command: str) -> None:
    device = run.accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    tree = {
        "command": command,
        **environment(name, 1),
        "threads": torch.get_num_threads(),
        "config": run.config,
        "balancers": {
            name: {**vars(cost), **summary(cost, costs[BASELINE])} for name, cost in costs.items()
        },
    }
    output.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
