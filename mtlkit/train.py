"""The training loop. ``python -m mtlkit.train`` is the command ``mtlkit train``."""

if __name__ == "__main__":  # the command line decides what needs importing
    import sys

    from mtlkit.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))

import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from mtlkit.balancer import LossBalancer
from mtlkit.checkpoint import (
    load_tree,
    random_state,
    save_model,
    save_tree,
    set_random_state,
)
from mtlkit.data import Dataset, Samples, Split
from mtlkit.errors import CheckpointError, ConfigError, RunError
from mtlkit.evaluate import evaluate, score
from mtlkit.loader import Batch, Batches, Prepared, make_loader
from mtlkit.model import Model, TaskBatch
from mtlkit.pictures import curves, gallery
from mtlkit.run import RunFolder
from mtlkit.settings import Settings
from mtlkit.step import Step, StepResult

GALLERY_SIZE = 6


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
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_score: float = -math.inf
    best_step: int = 0
    stale: int = 0
    seconds: float = 0.0


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
        optimizer: prepared by Accelerate.
        scheduler: asked once a step for the learning rate; None leaves it alone.
        steps: optimiser steps planned.
        accelerator: runs it.
        config: everything chosen, resolved, for ``config.yaml``.
        model_config: what ``model/config.json`` gets.
        observers: plugins that are told of the run's events.
    """

    settings: Settings
    folder: RunFolder
    dataset: Dataset
    model: Model
    balancer: LossBalancer
    optimizer: Any
    scheduler: Any
    steps: int
    accelerator: Accelerator
    config: dict[str, Any]
    model_config: dict[str, Any]
    observers: Observers
    progress: Progress = field(default_factory=Progress)

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

    def loader(self, split: Split, *, train: bool = False) -> DataLoader[Batch]:
        """Batches of a split; in training shuffled and augmented."""
        settings = self.settings
        samples = self.dataset.split("train" if settings.overfit else split)
        if settings.overfit:
            few = range(min(settings.overfit, len(samples)))
            samples = cast(Samples, Subset(cast(Any, samples), few))
        used = {task.target for task in self.model.tasks.values()}
        prepared = Prepared(
            samples,
            {name: spec for name, spec in self.dataset.spec.targets.items() if name in used},
            self.model.image_size,
            augment=settings.augment if train and not settings.overfit else "none",
            seed=settings.seed,
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
            prepared,
            batches,
            workers=default_workers() if settings.workers is None else settings.workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def evaluate(self, split: Split) -> dict[str, float]:
        """Metrics and losses on a split, which is empty for an empty split."""
        loader = self.loader(split)
        if not len(loader):
            return {}
        return evaluate(
            self.model, loader, self.accelerator, channels_last=self.settings.channels_last
        )


def default_workers() -> int:
    """Processes that load data: one per two cores of this training process, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, (cores or 1) // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def planned_steps(settings: Settings, samples: int, processes: int) -> tuple[int, int]:
    """Optimiser steps of one epoch and of the whole run."""
    if settings.overfit:
        samples = min(samples, settings.overfit)
    batches = Batches(samples, settings.batch_size, train=True, world=processes).total
    per_epoch = -(-batches // settings.accumulate)
    whole = per_epoch * settings.epochs
    return per_epoch, min(whole, settings.max_steps or whole)


def train(run: Run) -> dict[str, Any]:
    """Train to the end, evaluate on test once, write everything; returns results.json's content."""
    started = time.monotonic() - run.progress.seconds
    with Interruption() as interruption:
        try:
            run.observers.notify("mtlkit_run_started", run=run)
            reason = _train(run, interruption, started)
        except BaseException as error:
            run.observers.notify("mtlkit_run_failed", run=run, error=error)
            raise
        run.progress.seconds = time.monotonic() - started
        if interruption.signal:
            save_last(run)
            run.say(f"stopped by a signal; go on with: mtlkit train --resume {run.folder.path}")
            raise SystemExit(128 + interruption.signal)
    if reason:
        run.say(f"stopped early: {reason}")
    summary = _finish(run, started)
    run.observers.notify("mtlkit_run_ended", run=run, summary=summary)
    run.accelerator.end_training()
    return summary


def _train(run: Run, interruption: "Interruption", started: float) -> str | None:
    """Epochs until the planned steps are done; returns why it stopped earlier, if it did."""
    settings, progress = run.settings, run.progress
    network = run.accelerator.prepare_model(
        torch.compile(run.model) if settings.compile else run.model
    )
    step = Step(
        run.accelerator,
        network,
        run.model,
        run.balancer,
        run.optimizer,
        clip=settings.clip,
        seed=settings.seed,
    )
    loader = run.loader("train", train=True)
    run.model.train()
    while progress.step < run.steps:
        run.observers.notify("mtlkit_epoch_started", run=run)
        _epoch(run, step, loader, interruption)
        if interruption.signal:
            return None
        finished = progress.batch >= loader.batch_sampler.total  # type: ignore[union-attr]
        result = _evaluate_and_keep(run)
        progress.seconds = time.monotonic() - started
        if finished:
            progress.epoch, progress.batch = progress.epoch + 1, 0
        save_last(run)
        if settings.patience and progress.stale >= settings.patience:
            return f"no better checkpoint in {progress.stale} evaluations"
        reason = run.observers.stop_reason(run, result)
        if reason:
            return reason
    return None


def _epoch(run: Run, step: Step, loader: DataLoader[Batch], interruption: "Interruption") -> None:
    """What is left of one epoch, or of the planned steps."""
    settings, progress = run.settings, run.progress
    batches: Batches = loader.batch_sampler  # type: ignore[assignment]
    batches.epoch, batches.start = progress.epoch, progress.batch
    recent: list[StepResult] = []
    since, images = time.monotonic(), 0
    bar = tqdm(
        total=-(-batches.total // settings.accumulate),
        initial=progress.batch // settings.accumulate,
        desc=f"epoch {progress.epoch + 1}/{settings.epochs}",
        unit="step",
        leave=False,
        disable=None if run.main else True,
    )
    for window in windows(loader, run.model, settings):
        if run.scheduler is not None:
            run.scheduler.step_update(progress.step)
        result = step(window, step=progress.step, epoch=progress.epoch)
        progress.step += 1
        progress.batch += len(window)
        recent.append(result)
        images += sum(len(batch.present[0]) for batch in window)
        bar.update()
        run.observers.notify("mtlkit_step_ended", run=run, step=result)
        if progress.step % settings.log_every == 0:
            speed = images * run.accelerator.num_processes / (time.monotonic() - since)
            values = _log_training(run, recent, speed)
            bar.set_postfix(loss=f"{values['loss']:.3f}", images_s=f"{speed:.0f}")
            recent, since, images = [], time.monotonic(), 0
        if progress.step >= run.steps or interruption.agreed(run.accelerator, progress.step):
            break
    bar.close()


def windows(
    loader: DataLoader[Batch], model: Model, settings: Settings
) -> Iterator[list[TaskBatch]]:
    """Batches on the device, as many at a time as one optimiser step takes."""
    window: list[TaskBatch] = []
    for batch in loader:
        window.append(model.prepare(batch, channels_last=settings.channels_last))
        if len(window) == settings.accumulate:
            yield window
            window = []
    if window:
        yield window


def _log_training(run: Run, recent: Sequence[StepResult], speed: float) -> dict[str, float]:
    """Log the means of the last steps; here the host waits for the device."""
    ids = list(run.model.tasks)
    losses = [torch.stack([r.losses[id] for r in recent]).nanmean().item() for id in ids]
    weights = [torch.stack([r.weights[id] for r in recent]).nanmean().item() for id in ids]
    for id, loss, weight in zip(ids, losses, weights, strict=True):
        if math.isinf(loss) or (math.isnan(loss) and not math.isnan(weight)):
            raise RunError(
                f"the loss of task '{id}' became {loss} at or before step {run.progress.step}; "
                "try a lower --lr, --clip 1, or --precision no"
            )
    values = {f"{id}/loss": loss for id, loss in zip(ids, losses, strict=True)}
    values |= {f"{id}/weight": weight for id, weight in zip(ids, weights, strict=True)}
    values["loss"] = sum(loss for loss in losses if loss == loss)
    values["lr"] = run.optimizer.param_groups[0]["lr"]
    values["images_per_second"] = speed
    run.log("train", values)
    return values


def _evaluate_and_keep(run: Run) -> dict[str, Any]:
    """Evaluate on val; keep the model if it is the best so far; returns what observers are told."""
    progress = run.progress
    values = run.evaluate("val")
    run.log("val", values)
    result = {"split": "val", **values}
    run.observers.notify("mtlkit_evaluated", run=run, result=result)
    tasks = run.model.tasks.values()
    now = score(values, tasks, run.settings.monitor) if values else float(progress.step)
    better = now > progress.best_score or progress.best_step == 0
    if better:
        progress.best_score, progress.best_step, progress.stale = now, progress.step, 0
        if run.main:
            save_tree(run.folder.best, {"model": run.model.state_dict(), "step": progress.step})
            save_model(run.folder.model, run.model, run.model_config)
    else:
        progress.stale += 1
    shown = [f"{t.id}/{t.primary} {values.get(f'{t.id}/{t.primary}', math.nan):.3f}" for t in tasks]
    run.say(
        f"epoch {progress.epoch + 1:3d}/{run.settings.epochs}  step {progress.step:6d}  "
        f"val: loss {values.get('loss', math.nan):.3f}  {'  '.join(shown)}{'  best' * better}"
    )
    return result


def save_last(run: Run) -> None:
    """Write ``checkpoints/last``: all that is needed to go on as if nothing had happened."""
    random = random_state(run.accelerator)
    scaler = run.accelerator.scaler
    tree = {
        "model": run.model.state_dict(),
        "balancer": run.balancer.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "random": random,
        "progress": asdict(run.progress),
        "tasks": list(run.model.tasks),
        "processes": run.accelerator.num_processes,
    }
    if run.main:
        save_tree(run.folder.last, tree)
    run.accelerator.wait_for_everyone()
    run.observers.notify("mtlkit_checkpoint_saved", run=run, checkpoint=run.folder.last)


def resume(run: Run) -> None:
    """Put a run back to where its last checkpoint was written.

    Raises:
        CheckpointError: the checkpoint does not fit this run; the message says where.
    """
    tree = load_tree(run.folder.last)
    tasks, processes = list(run.model.tasks), run.accelerator.num_processes
    if tree["tasks"] != tasks:
        raise CheckpointError(
            f"{run.folder.path} was trained on the tasks {', '.join(tree['tasks'])}, "
            f"not {', '.join(tasks)}; resume with the same tasks"
        )
    if tree["processes"] != processes:
        raise CheckpointError(
            f"{run.folder.path} ran on {tree['processes']} processes, not {processes}; "
            "resume on as many"
        )
    try:
        run.model.load_state_dict(tree["model"])
        run.balancer.load_state_dict(tree["balancer"])
        run.optimizer.load_state_dict(tree["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{run.folder.last} does not fit this configuration: {error}"
        ) from None
    _match_layout(run.optimizer)
    if run.accelerator.scaler and tree["scaler"]:
        run.accelerator.scaler.load_state_dict(tree["scaler"])
    set_random_state(tree["random"], run.accelerator.process_index)
    run.progress = Progress(**tree["progress"])
    if run.main:
        run.folder.rewind(run.progress.step)
    run.say(f"resumed {run.folder.path} at step {run.progress.step}")


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser's loaded state its parameters' memory order, which fused steps rely on."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _finish(run: Run, started: float) -> dict[str, Any]:
    """Take the best model, evaluate it once on test, and write results and pictures."""
    progress = run.progress
    run.accelerator.wait_for_everyone()
    best: dict[str, Tensor] = load_tree(run.folder.best)["model"]
    run.model.load_state_dict(best)
    summary: dict[str, Any] = {
        "test": run.evaluate("test"),
        "val": run.evaluate("val"),
        "best_step": progress.best_step,
        "steps": progress.step,
        "balancer": {"name": run.config["balancer"]["name"]},
        "seconds": time.monotonic() - started,
        "status": "ok",
    }
    if run.main:
        run.progress.epoch = max(0, progress.epoch - 1)
        run.folder.log(progress.step, run.progress.epoch, "test", summary["test"])
        run.folder.write_results(summary)
        draw(run)
    return summary


def draw(run: Run) -> None:
    """Write the pictures of a run: curves, and a gallery of the first samples of val."""
    curves(run.folder.path / "plots", run.folder.history(), run.model.tasks.values())
    split: Split = "val" if run.dataset.spec.sizes.get("val") else "test"
    loader = run.loader(split)
    prepared = loader.dataset
    assert isinstance(prepared, Prepared)
    count = min(GALLERY_SIZE, len(prepared.samples))
    if count:
        keys = next(iter(Batches(len(prepared.samples), count, train=False)))
        batch = prepared.collate([prepared[key] for key in keys])
        gallery(run.folder.path / "gallery", run.model, batch)


class Interruption:
    """Notes SIGINT and SIGTERM, so that the run ends between two steps; a second one ends it now.

    On several processes they agree every few steps, so that all stop at the same one.
    """

    EVERY = 10

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread: signals go elsewhere
            pass
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._before[number])

    def agreed(self, accelerator: Accelerator, step: int) -> bool:
        """Whether all processes stop after this step."""
        if accelerator.num_processes == 1:
            return bool(self.signal)
        if step % self.EVERY:
            return False
        noted = torch.tensor([self.signal], device=accelerator.device)
        self.signal = int(accelerator.gather(noted).max())
        return bool(self.signal)


def make_accelerator(settings: Settings, folder: str) -> Accelerator:
    """Accelerate on whatever there is: GPUs, or the CPU on one process or several.

    Raises:
        ConfigError: the launcher started more processes than Accelerate sees, or fp16 is asked
            for where it does not exist.
    """
    on_cpu = not torch.accelerator.is_available() or "ACCELERATE_USE_CPU" in os.environ
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=settings.precision,
        log_with=list(settings.log_with) or None,
        project_dir=folder,
    )
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != accelerator.num_processes:
        raise ConfigError(
            f"{world} processes were started but Accelerate sees {accelerator.num_processes}; "
            f"start them with: mtlkit train --num-processes {world} ..."
        )
    if settings.precision == "fp16" and accelerator.scaler is None:
        raise ConfigError("--precision fp16 needs a GPU; on the CPU use bf16 or no")
    return accelerator
