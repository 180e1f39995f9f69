"""Saving a run: the state from which it can go on, and its best model."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import nn

from mtlkit.checkpoint import save_tree
from mtlkit.errors import MtlkitError, RunError
from mtlkit.evaluate import Scores
from mtlkit.model_folder import save_model
from mtlkit.optimizer_state import optimizer_state
from mtlkit.random_state import random_states
from mtlkit.record import write_tables
from mtlkit.session import Run


def save_last(run: Run) -> None:
    """Write ``checkpoints/last``: all that is needed to go on as if nothing had happened.

    Raises:
        RunError: it cannot be written, on all processes; those written before are as they were.
    """
    scaler = run.accelerator.scaler
    tree = {
        "model": run.model.state_dict(),
        "balancing": run.engine.balancing.state_dict(),
        "columns": run.engine.state(),
        "optimizer": optimizer_state(run.optimizer.optimizer, parameter_names(run)),
        "scaler": scaler.state_dict() if scaler else None,
        "random": random_states(),
        "recent": [vars(result) for result in run.recent],
        "progress": asdict(run.progress),
        "facts": facts(run),
        "config": run.config,
    }

    def write() -> None:
        logged = run.folder.logged()
        run.checkpoints.save({**tree, "logged": logged}, run.progress.step)

    on_main(run, write)
    run.observers.notify("mtlkit_checkpoint_saved", run=run, checkpoint=run.checkpoints.last)


def save_best(run: Run, values: Scores) -> None:
    """Keep the model as the best so far, with its metrics on val.

    Raises:
        RunError: it cannot be written, on all processes.
    """

    def write() -> None:
        tree = {"model": run.model.state_dict(), "step": run.progress.step, "val": dict(values)}
        save_tree(run.folder.best, tree)
        save_model(run.folder.model, run.model, run.model_config)
        write_tables(run.folder.path, "val", values)

    on_main(run, write)


def on_main(run: Run, write: Callable[[], object]) -> None:
    """Write on the main process while the others wait; if that fails, all of them fail.

    Raises:
        MtlkitError: what it raised, or that it cannot write.
    """
    problem: list[MtlkitError | None] = [None]
    if run.main:
        try:
            write()
        except MtlkitError as error:
            problem = [error]
        except OSError as error:
            problem = [RunError(run.folder.cannot_write(run.folder.path, error))]
    broadcast_object_list(problem)
    if problem[0] is not None:
        raise problem[0]


def parameter_names(run: Run) -> dict[nn.Parameter, str]:
    """Of all that the optimiser moves."""
    network = run.model.named_parameters(prefix="model")
    return {p: name for name, p in [*network, *run.balancer.named_parameters(prefix="balancer")]}


def facts(run: Run) -> dict[str, Any]:
    """What a run must be like to go on where it was."""
    settings, targets = run.settings, run.dataset.spec.targets
    images = settings.batch_size * run.accelerator.num_processes
    used = {task.target for task in run.model.tasks.values()}
    return {
        "tasks": list(run.model.tasks),
        "images in a batch": images,
        "lasting": {
            "images in an optimiser step": images * settings.accumulate,
            "optimiser steps in an epoch": run.steps_per_epoch,
            "training images": run.dataset.spec.sizes["train"],
            "--image-size": list(run.model.image_size),
            "--optimizer": settings.optimizer,
            "--views": settings.views,
            "--overfit": settings.overfit,
            "--seed": settings.seed,
            **{
                f"classes or channels of '{name}'": list(spec.classes) or spec.channels
                for name, spec in targets.items()
                if name in used
            },
        },
    }
