"""What a plugin may implement: one hook per kind of component, and the life cycle of a run.

A plugin is a module named by an entry point of the group ``mtlkit``; its hooks are functions
marked with ``@mtlkit.hookimpl``. A life-cycle hook takes only the arguments it wants.
"""

from collections.abc import Mapping
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("mtlkit")

Table = Mapping[str, str | type]
"""Name of a component to ``"module:Class"`` (imported when it is used), or to the class."""


@hookspec
def mtlkit_tasks() -> Table:
    """The tasks this plugin brings, by name. Called once, when mtlkit looks for components."""
    return {}


@hookspec
def mtlkit_heads() -> Table:
    """The heads this plugin brings, by name. Called once, when mtlkit looks for components."""
    return {}


@hookspec
def mtlkit_backbones() -> Table:
    """The backbones this plugin brings, by name. Called once, when mtlkit looks for components."""
    return {}


@hookspec
def mtlkit_balancers() -> Table:
    """The balancers this plugin brings, by name. Called once, when mtlkit looks for components."""
    return {}


@hookspec
def mtlkit_datasets() -> Table:
    """The datasets this plugin brings, by name. Called once, when mtlkit looks for components."""
    return {}


@hookspec
def mtlkit_run_started(run: Any) -> None:
    """Everything is built and, with ``--resume``, restored; no step was done yet.

    Args:
        run: the run, one object for all hooks; it can grow. It has ``config`` (as in
            ``config.yaml``), ``folder`` (with its ``path``), ``model``, ``balancer``, ``dataset``,
            ``accelerator``, ``step`` (optimiser steps done), ``epoch`` (from 0) and ``main``
            (whether this process is the one that writes).
    """


@hookspec
def mtlkit_epoch_started(run: Any) -> None:
    """A pass over the training data begins.

    Args:
        run: as in :func:`mtlkit_run_started`; ``run.epoch`` is the one that begins.
    """


@hookspec
def mtlkit_step_ended(run: Any, step: Any) -> None:
    """An optimiser step was done, or was left out because a gradient was not finite.

    Args:
        run: as in :func:`mtlkit_run_started`.
        step: what happened; it has ``losses`` and ``weights`` by task id, and where the tasks'
            gradients were taken their ``gramian``, ``[T, T]``.
    """


@hookspec
def mtlkit_evaluated(run: Any, result: Any) -> None:
    """The network was evaluated on a split.

    Args:
        run: as in :func:`mtlkit_run_started`.
        result: ``split``, and the metrics under the keys that ``metrics.jsonl`` has.
    """


@hookspec
def mtlkit_checkpoint_saved(run: Any, checkpoint: Any) -> None:
    """A checkpoint is complete on disk.

    Args:
        run: as in :func:`mtlkit_run_started`.
        checkpoint: folder of the checkpoint.
    """


@hookspec
def mtlkit_stop_reason(run: Any, result: Any) -> str | None:
    """Whether to end the run now: a reason for the user to read, or None to go on.

    Called after every evaluation on val, on every process, and must answer alike on all of them.
    It changes training, so an error in it ends the run.

    Args:
        run: as in :func:`mtlkit_run_started`.
        result: as in :func:`mtlkit_evaluated`.
    """
    return None


@hookspec
def mtlkit_run_ended(run: Any, summary: Any) -> None:
    """The run reached its end and wrote its results.

    Args:
        run: as in :func:`mtlkit_run_started`.
        summary: what ``results.json`` holds.
    """


@hookspec
def mtlkit_run_failed(run: Any, error: Any) -> None:
    """The run was ended by an exception, Ctrl-C among them.

    Args:
        run: as in :func:`mtlkit_run_started`.
        error: the exception; it is raised again after this hook.
    """
