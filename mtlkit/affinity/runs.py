"""Affinity: which tasks help and hurt each other, in a saved run or while one is trained."""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

from mtlkit import api
from mtlkit.affinity import attention, effects
from mtlkit.affinity.answer import Found, Wanted, tell
from mtlkit.affinity.lookahead import Look, Lookahead
from mtlkit.build import load_model
from mtlkit.config import from_mapping
from mtlkit.data import Split
from mtlkit.errors import CheckpointError, ConfigError
from mtlkit.loader import Batches
from mtlkit.model import TaskBatch
from mtlkit.session import Run
from mtlkit.settings import Config
from mtlkit.step import Step, StepResult
from mtlkit.train import train, windows


def of_run(folder: Path, wanted: Wanted, *, batches: int, output: Path | None) -> None:
    """Measure at a saved run's best model, on training batches, and print what was found.

    Args:
        folder: of the run.
        wanted: how to measure.
        batches: training steps' worth of images to measure on.
        output: folder for numbers and pictures.

    Raises:
        CheckpointError: the folder holds no run with a model.
        ConfigError: this run cannot be measured like that.
    """
    if wanted.optimizer:
        raise ConfigError(
            "--lookahead optimizer needs an optimizer at work, which a saved model has not; "
            "measure while training, or leave it out"
        )
    config = saved_config(folder)
    if output:
        _make(output)
    run = api.assemble(config)
    run.model.load_state_dict(load_model(folder).state_dict())
    check(run, wanted)
    found = Found(run, wanted, logged=effects.logged([*run.folder.history()], [*run.model.tasks]))
    look = _lookahead(run, wanted)
    compared = _endless(run, "val") if wanted.held_out else None
    run.model.train()
    for number, window in enumerate(islice(_endless(run, "train"), batches)):
        found.looks.append(look(window, next(compared) if compared else None, step=number))
    tell(found, output)


def of_training(config: Config, wanted: Wanted, *, every: int) -> None:
    """Train as ``mtlkit train`` would, and measure before every ``every``-th step.

    What was found is printed, and written into the folder of the run.

    Raises:
        ConfigError: this run cannot be measured like that.
    """
    if config.settings.resume:
        raise ConfigError(
            "a training is measured from its start, not resumed; measure its saved model by "
            f"mtlkit affinity {config.settings.output}"
        )
    run = api.assemble(config)
    check(run, wanted)
    if run.steps <= every:
        raise ConfigError(
            f"--every {every} looks once in {run.steps} steps, which tells nothing of noise; "
            "take a smaller --every or train longer"
        )
    found = Found(run, wanted)
    api.describe(run)
    run.cache_samples()
    watched = Watched(run.engine, _lookahead(run, wanted), every, found.looks,
                      _endless(run, "val") if wanted.held_out else None)  # fmt: skip
    run.engine = cast(Step, watched)
    api.start(run)
    train(run)
    tell(found, run.folder.path)


class Watched:
    """An engine whose network is looked at before some of its steps.

    Args:
        engine: does the steps, and all else that it is asked for.
        look: measures.
        every: steps between two looks.
        looks: where they are kept.
        compared: batches to compare losses on; None takes those of the step.
    """

    def __init__(
        self,
        engine: Step,
        look: Lookahead,
        every: int,
        looks: list[Look],
        compared: Iterator[Sequence[TaskBatch]] | None,
    ) -> None:
        self._engine = engine
        self._look = look
        self._every = every
        self._looks = looks
        self._compared = compared

    def __call__(self, batches: Sequence[TaskBatch], *, step: int, epoch: int) -> StepResult:
        """A step, after a look if it is time."""
        if step % self._every == 0:
            others = next(self._compared) if self._compared else None
            self._looks.append(self._look(batches, others, step=step))
        return self._engine(batches, step=step, epoch=epoch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def saved_config(folder: Path) -> Config:
    """The configuration of a saved run, which it is assembled from again.

    Raises:
        CheckpointError: the folder is not that of a run.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise CheckpointError(f"{folder} is not the folder of a run: it has no config.yaml")
    config = from_mapping({"config": str(file), "resume": False})
    config.settings.output = str(folder)
    config.settings.log_with = ()
    return config


def check(run: Run, wanted: Wanted) -> None:
    """Refuse a run that cannot be measured.

    Raises:
        ConfigError: the message says why.
    """
    if run.accelerator.num_processes > 1:
        raise ConfigError("tasks are measured on one process; start this without a launcher")
    if len(run.model.tasks) == 1:
        raise ConfigError("there is one task alone; name several by --tasks A,B,...")
    if wanted.held_out and not run.dataset.spec.sizes.get("val"):
        raise ConfigError("--held-out needs a val split, and this data has none")
    if wanted.attention:
        attention.check(run.model, run.config["backbone"]["name"])


def _make(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write to the output folder {output}: {error.strerror}; choose another --output"
        ) from None


def _lookahead(run: Run, wanted: Wanted) -> Lookahead:
    optimizer = run.optimizer.optimizer if wanted.optimizer else None
    return Lookahead(run.model, lr=run.settings.lr, optimizer=optimizer)


def _endless(run: Run, split: Split) -> Iterator[Sequence[TaskBatch]]:
    """Batches of one step after the other, shuffled and augmented as in training."""
    loader = run.loader(split, train=True)
    batches = cast(Batches, loader.batch_sampler)
    for batches.epoch in count():
        yield from windows(loader, run.model, run.settings)
