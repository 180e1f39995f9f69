"""Bench: what each balancer costs on the user's own network and data, against the plain sum."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from mtlkit import api, measure, registry
from mtlkit.balancer import LossBalancer
from mtlkit.build import build_engine, create
from mtlkit.config import DEFAULTS
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
    costs = compare(run, balancers, window, rounds)
    passes = {name: _passes(run, balancer, window) for name, balancer in balancers.items()}
    by_direction = {
        way: {name: found[way] for name, found in passes.items()} for way in ("forward", "backward")
    }
    print(measure.table(costs, BASELINE, by_direction))
    if output:
        found = measure.numbers(costs, BASELINE)
        for name in found:
            found[name] |= {f"{way}_passes": number for way, number in passes[name].items()}
        tree = {"config": run.config, "balancers": found}
        measure.write(output, command, run.accelerator.device, tree)


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
