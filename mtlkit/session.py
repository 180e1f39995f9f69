"""Run: the parts of a run in progress, and how far it has come."""

import math
import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from mtlkit import trackers
from mtlkit.balancer import LossBalancer
from mtlkit.cache import CachedSamples, cached
from mtlkit.checkpoint import Checkpoints
from mtlkit.data import Dataset, ReducibleSamples, Samples, Split, TargetSpec
from mtlkit.errors import ConfigError, DataError, MtlkitError, ProcessError
from mtlkit.evaluate import Scores, evaluate
from mtlkit.full_size import FullSize
from mtlkit.geometry import Augment, smallest_image
from mtlkit.interruption import Interruption
from mtlkit.loader import Batch, Batches, Prepared, make_loader, read
from mtlkit.model import Model
from mtlkit.run import RunFolder
from mtlkit.settings import Settings
from mtlkit.step import Step, StepResult


@dataclass
class Progress:
    """How far a run has come.

    Args:
        step: optimiser steps done.
        epoch: the epoch that is running, from 0.
        batch: batches of it that are done.
        best_score: of the best evaluation on val so far.
        best_step: when that was.
        stale: evaluations since then.
        seconds: spent, in all sessions of this run.
        evaluated: step of the last evaluation on val.
        faults: steps in which a loss or gradient was not finite.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_score: float = -math.inf
    best_step: int = 0
    stale: int = 0
    seconds: float = 0.0
    evaluated: int = 0
    faults: int = 0


class Observers(Protocol):
    """Calls the life-cycle hooks of plugins."""

    def notify(self, hook: str, **payload: Any) -> None:
        """Tell every observer."""

    def stop_reason(self, run: Any, result: Any) -> str | None:
        """The first reason an observer has to end the run."""


@dataclass
class Run:
    """A run in progress; observers get it as ``run``.

    Args:
        settings: general options.
        folder: where it is written.
        dataset: its data.
        model: unwrapped.
        balancer: of this run.
        engine: does the optimiser steps.
        optimizer: prepared by Accelerate.
        scheduler: asked once a step for the learning rate; None leaves it alone.
        steps: optimiser steps planned.
        steps_per_epoch: optimiser steps in an epoch.
        accelerator: runs it.
        config: everything chosen, resolved, for ``config.yaml``.
        model_config: what ``model/config.json`` gets.
        observers: plugins that are told of the run's events.
        progress: how far it has come.
        recent: what the steps did since the last line of training in the log.
        began: when it would have, on the monotonic clock, had it never been interrupted.
    """

    settings: Settings
    folder: RunFolder
    dataset: Dataset
    model: Model
    balancer: LossBalancer
    engine: Step
    optimizer: Any
    scheduler: Any
    steps: int
    steps_per_epoch: int
    accelerator: Accelerator
    config: dict[str, Any]
    model_config: dict[str, Any]
    observers: Observers
    progress: Progress = field(default_factory=Progress)
    recent: list[StepResult] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _cached: dict[tuple[Split, Augment], CachedSamples] = field(default_factory=dict, repr=False)
    _loaders: dict[tuple[Split, bool], DataLoader[Batch]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.folder.checkpoints, self.settings.keep)

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """The epoch that is running, from 0."""
        return self.progress.epoch

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return bool(self.accelerator.is_main_process)

    @property
    def again(self) -> str:
        """The command that goes on with this run."""
        return f"mtlkit train --resume {self.folder.path}"

    def say(self, text: str) -> None:
        """Print a line above the progress bar, on the main process."""
        if self.main:
            tqdm.write(text)

    def log(self, split: str, values: dict[str, float]) -> None:
        """Write one line to metrics.jsonl and mirror it to the trackers."""
        if self.main:
            self.folder.log(self.progress.step, self.progress.epoch, split, values)
        mirrored = {f"{split}/{key}": value for key, value in values.items()}
        self.accelerator.log(mirrored, step=self.progress.step)

    def loader(
        self, split: Split, *, train: bool = False, full_size: bool = False
    ) -> DataLoader[Batch]:
        """Batches of a split; in training shuffled and augmented.

        With ``full_size`` they also have the labels in their own pictures' pixels.
        """
        settings = self.settings
        augment = self._augment(train)
        samples = self.samples(split, augment, full_size=full_size)
        prepared = Prepared(
            samples, self._targets(), self.model.image_size, augment=augment, seed=settings.seed
        )
        batches = Batches(
            len(samples),
            settings.batch_size,
            train=train,
            seed=settings.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        return make_loader(
            cast(Prepared, FullSize(prepared)) if full_size else prepared,
            batches,
            workers=self._workers(),
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def samples(self, split: Split, augment: Augment, *, full_size: bool = False) -> Samples:
        """A split's samples, with images as large as an augmentation needs; cached if they are.

        With ``full_size`` they are as the reader has them.
        """
        settings = self.settings
        split = "train" if settings.overfit else split
        if (split, augment) in self._cached and not full_size:
            return self._cached[split, augment]
        samples = self.dataset.split(split)
        reduced = settings.decode == "reduced" and not full_size
        if reduced and isinstance(samples, ReducibleSamples):
            samples = samples.at_least(smallest_image(augment, self.model.image_size))
        if settings.overfit:
            few = range(min(settings.overfit, len(samples)))
            samples = cast(Samples, Subset(cast(Any, samples), few))
        return samples

    def cache_samples(self) -> None:
        """Decode what every epoch reads, once on each machine, if the settings say so.

        Raises:
            ConfigError: there is not enough room; on all processes.
        """
        kind = self.settings.cache
        if kind == "none":
            return
        local_main = self.accelerator.process_index - self.accelerator.local_process_index
        splits: tuple[tuple[Split, bool], ...] = (("train", True), ("val", False))
        for split, train in splits:
            augment = self._augment(train)
            samples, made = self.samples(split, augment), None
            outcome: str | MtlkitError | None = None
            if self.accelerator.is_local_main_process and not isinstance(samples, CachedSamples):
                try:
                    made = cached(
                        samples, tuple(self._targets()), kind, what=split, workers=self._workers()
                    )
                    outcome = made.path
                except MtlkitError as error:
                    outcome = error
                except OSError as error:
                    outcome = DataError(f"cannot read the data of {split}: {error}")
            outcome = gather_object([outcome])[local_main]
            if isinstance(outcome, MtlkitError):
                raise outcome
            if outcome is not None:
                where = "train" if self.settings.overfit else split
                self._cached[where, augment] = made or CachedSamples(outcome)

    def _augment(self, train: bool) -> Augment:
        return self.settings.augment if train and not self.settings.overfit else "none"

    def _targets(self) -> dict[str, TargetSpec]:
        """The labels that tasks use."""
        used = {task.target for task in self.model.tasks.values()}
        return {name: spec for name, spec in self.dataset.spec.targets.items() if name in used}

    def _workers(self) -> int:
        return default_workers() if self.settings.workers is None else self.settings.workers

    def evaluate(
        self,
        split: Split,
        *,
        full_size: bool = False,
        interruption: Interruption | None = None,
    ) -> Scores:
        """Metrics and losses on a split, which is empty for an empty split.

        With ``full_size`` masks, maps and boxes are compared in the pixels of each picture.

        Raises:
            Interrupted: the run is asked to end.
        """
        key = (split, full_size)
        if key not in self._loaders:  # its worker processes stay for the next evaluation
            self._loaders[key] = self.loader(split, full_size=full_size)
        loader = self._loaders[key]
        if not len(loader):
            return Scores()
        batches = read(loader)
        return evaluate(
            self.model,
            batches if interruption is None else interruption.watched(batches),
            self.accelerator,
            channels_last=self.settings.channels_last,
        )


def default_workers() -> int:
    """Processes that load data: one per two cores of this training process, at most 8."""
    return min(8, cores() // 2)


def cores() -> int:
    """CPU cores for each training process of this machine, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (allowed or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def planned_steps(settings: Settings, samples: int, processes: int) -> tuple[int, int]:
    """Optimiser steps of one epoch and of the whole run."""
    if settings.overfit:
        samples = min(samples, settings.overfit)
    batches = Batches(samples, settings.batch_size, train=True, world=processes).total
    per_epoch = -(-batches // settings.accumulate)
    whole = per_epoch * settings.epochs
    return per_epoch, min(whole, settings.max_steps or whole)


def make_accelerator(settings: Settings, folder: str) -> Accelerator:
    """Accelerate on whatever there is: GPUs, or the CPU on one process or several.

    Raises:
        ConfigError: the launcher started more processes than Accelerate sees, asks for a way to
            split the network that mtlkit does not have, or fp16 is asked for where it does not
            exist.
    """
    if "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(cores())  # accelerate launch gives one thread unless told otherwise
    on_cpu = not torch.accelerator.is_available() or "ACCELERATE_USE_CPU" in os.environ
    _check_launcher()
    trackers.check(settings.log_with)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    waiting = InitProcessGroupKwargs(
        backend="gloo" if on_cpu else "nccl", timeout=timedelta(minutes=settings.timeout)
    )
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    try:
        accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision=settings.precision,
            log_with=list(settings.log_with) or None,
            project_dir=folder,
            kwargs_handlers=[waiting] if world > 1 else None,
        )
    except RuntimeError as error:
        if world == 1:
            raise
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ProcessError(
            f"cannot meet the other processes of the run at {place}: {' '.join(str(error).split())}"
        ) from error
    if world != accelerator.num_processes:
        raise ConfigError(
            f"{world} processes were started but Accelerate sees {accelerator.num_processes}; "
            f"start them with: mtlkit train --num-processes {world} ..."
        )
    if settings.precision == "fp16" and accelerator.scaler is None:
        raise ConfigError("--precision fp16 needs a GPU; on the CPU use bf16 or no")
    return accelerator


_SPLITS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
"""What a launcher sets to have the network split over processes."""


def _check_launcher() -> None:
    """Refuse ways of training in which no process holds the whole network."""
    for variable, name in _SPLITS.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise ConfigError(
                f"the launcher asks for {name}, which splits the network over processes; mtlkit "
                "keeps it whole on each of them: launch without it, for instance by "
                "mtlkit train --num-processes N ..."
            )
