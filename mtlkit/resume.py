"""Saving a run so that it can go on, and going on."""

from dataclasses import asdict

import torch
from torch import Tensor

from mtlkit.checkpoint import load_tree, random_state, save_tree, set_random_state
from mtlkit.errors import CheckpointError
from mtlkit.session import Progress, Run


def save_last(run: Run) -> None:
    """Write ``checkpoints/last``: all that is needed to go on as if nothing had happened."""
    random = random_state(run.accelerator)
    scaler = run.accelerator.scaler
    tree = {
        "model": run.model.state_dict(),
        "balancing": run.engine.balancing.state_dict(),
        "columns": run.engine.state(),
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
        run.engine.balancing.load_state_dict(tree["balancing"])
        run.engine.load_state(tree["columns"])
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
