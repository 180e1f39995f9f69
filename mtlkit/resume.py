"""Going on with a run from its last checkpoint."""

import shutil
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file
from torch import Tensor

from mtlkit.checkpoint import load_tree, save_tree
from mtlkit.errors import CheckpointError
from mtlkit.model_folder import read_model, save_model
from mtlkit.optimizer_state import load_optimizer_state
from mtlkit.random_state import set_random_states
from mtlkit.saving import facts, on_main, parameter_names
from mtlkit.session import Progress, Run
from mtlkit.step import StepResult

BROKEN = (LookupError, TypeError, ValueError, RuntimeError, AttributeError)
"""What reading a checkpoint can raise that is whole but not one of ours."""


def resume(run: Run) -> None:
    """Put a run back to where its last whole checkpoint was written.

    The tasks may be others: what is known of those that stay is taken up, new ones begin as they
    are, and the run's files of before are kept in a folder of their own.

    Raises:
        CheckpointError: no checkpoint is whole, or it does not fit this run; the message says why.
    """
    tree, problems = run.checkpoints.load()
    for problem in problems:
        run.say(f"note: {problem}; going on from the one before")
    try:
        changed = _check(run, tree["facts"])
        _load(run, tree, changed)
    except CheckpointError:
        raise
    except BROKEN as error:
        raise CheckpointError(
            f"the checkpoint of {run.folder.path} does not fit this configuration: {error}"
        ) from error
    if changed:
        _begin_anew(run)
    elif _lost_best(run):
        run.progress.best_score, run.progress.best_step, run.progress.stale = float("-inf"), 0, 0
    whole = [True]
    on_main(run, lambda: whole.append(run.folder.rewind(tree["logged"])))
    if not whole[-1]:
        run.say(f"note: {run.folder.metrics} has lost lines; it goes on from what is there")
    run.say(f"resumed {run.folder.path} at step {run.progress.step}")


def _check(run: Run, before: Mapping[str, Any]) -> bool:
    """Refuse what cannot go on; returns whether the tasks changed."""
    now = facts(run)
    differ = [
        f"{name}: {now['lasting'][name]}, but before {value}"
        for name, value in before["lasting"].items()
        if name in now["lasting"] and now["lasting"][name] != value
    ]
    if differ:
        raise CheckpointError(
            f"cannot go on with {run.folder.path}, which was another run: {'; '.join(differ)}. "
            "Leave these as they were, or start a new run"
        )
    return bool(before["tasks"] != now["tasks"])


def _load(run: Run, tree: Mapping[str, Any], changed: bool) -> None:
    """Take up everything in a checkpoint."""
    before, plugins = tree["facts"], run.config["plugins"]
    for name, version in tree["config"]["plugins"].items():
        if plugins.get(name, version) != version:
            run.say(f"note: the checkpoint was written with {name} {version}, not {plugins[name]}")
    _load_model(run, tree["model"], before["tasks"])
    load_optimizer_state(run.optimizer.optimizer, parameter_names(run), tree["optimizer"])
    name = run.config["balancer"]["name"]
    if changed or name != tree["config"]["balancer"]["name"]:
        if run.balancer.state_dict() or run.balancer.needs == "columns":
            run.say(f"balancer {name} begins anew")
    else:
        run.engine.balancing.load_state_dict(tree["balancing"])
        run.engine.load_state(tree["columns"])
    if run.accelerator.scaler and tree["scaler"]:
        run.accelerator.scaler.load_state_dict(tree["scaler"])
    run.progress = Progress(**tree["progress"])
    run.progress.batch = (
        run.progress.batch * before["images in a batch"] // facts(run)["images in a batch"]
    )
    if run.scheduler is not None and run.progress.step:  # the learning rate of the last step
        run.scheduler.step_update(run.progress.step - 1)
    run.recent = [StepResult(**_on(result, run.engine.home)) for result in tree["recent"]]
    set_random_states(tree["random"], run.accelerator.process_index)


def _load_model(run: Run, saved: Mapping[str, Tensor], before: list[str]) -> None:
    """Take up a network's values; with other tasks, those that both have."""
    now, tasks = run.model.state_dict(), list(run.model.tasks)
    new = [name for name in now if name not in saved]
    gone = [name for name in saved if name not in now]
    stay = tuple(f"heads.{id}." for id in tasks if id in before)
    wrong = [name for name in (*new, *gone) if before == tasks or name.startswith(stay)]
    if wrong:
        which = "the checkpoint has no" if wrong[0] in new else "the network has no"
        raise ValueError(f"{which} {wrong[0]}{f' and {len(wrong) - 1} more' * (len(wrong) > 1)}")
    for name in set(now) & set(saved):
        if now[name].shape != saved[name].shape:
            shapes = [str(list(state[name].shape)) for state in (now, saved)]
            raise ValueError(f"{name} has the shape {shapes[0]}, in the checkpoint {shapes[1]}")
    for what, ids, names, state in (
        ("new", [id for id in tasks if id not in before], new, now),
        ("dropped", [id for id in before if id not in tasks], gone, saved),
    ):
        if ids or names:
            values = sum(state[name].numel() for name in names)
            run.say(f"{what}: {', '.join(ids) or 'no task'}, {values:,} values of the network")
    run.model.load_state_dict({**now, **{k: v for k, v in saved.items() if k in now}})


def _begin_anew(run: Run) -> None:
    """With other tasks another model will be the best; what there is so far is kept beside."""
    progress, folder = run.progress, run.folder
    if progress.step >= run.steps:
        raise CheckpointError(
            f"{folder.path} has done all of its {progress.step} steps: to go on with other tasks, "
            "give more --epochs or --max-steps"
        )
    progress.best_score, progress.best_step, progress.stale = float("-inf"), 0, 0
    run.recent = []
    kept = folder.path / f"before-step-{progress.step}"

    def keep() -> None:
        if kept.exists():
            return
        fresh = kept.with_name(kept.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name in ("config.yaml", "env.json", "metrics.jsonl", "results.json"):
            if (folder.path / name).exists():
                shutil.copy2(folder.path / name, fresh)
        for inside in (folder.model, folder.checkpoints):
            if inside.exists():
                shutil.copytree(inside, fresh / inside.name)
        fresh.rename(kept)

    on_main(run, keep)
    run.say(f"the run as it was is kept in {kept}")


def _lost_best(run: Run) -> bool:
    """See to it that the best model is there; returns whether it is lost."""
    lost = [False]
    if run.main and run.progress.best_step:
        try:
            _restore_best(run)
        except CheckpointError as error:
            run.say(f"note: {error}; the best model is looked for anew")
            lost = [True]
    broadcast_object_list(lost)
    return lost[0]


def _restore_best(run: Run) -> None:
    """Write the best checkpoint again if a crash came before it, or it is damaged."""
    step = run.progress.best_step
    if step == run.progress.step:  # what is written last may be missing alone
        save_model(run.folder.model, run.model, run.model_config)
    try:
        if load_tree(run.folder.best)["step"] == step or step != run.progress.step:
            return
    except CheckpointError as error:
        run.say(f"note: {error}; it is written again")
    if step == run.progress.step:
        state = run.model.state_dict()
    else:
        _, weights = read_model(run.folder.path)  # the same model
        state = load_file(weights.file)
    lines = [x for x in run.folder.history() if x["split"] == "val" and x["step"] == step]
    values = {k: v for k, v in (lines or [{}])[-1].items() if "/" in k or k == "loss"}
    save_tree(run.folder.best, {"model": state, "step": step, "val": values})


def _on(tree: Any, device: torch.device) -> Any:
    """The same with all tensors on a device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    return {k: _on(v, device) for k, v in tree.items()} if isinstance(tree, dict) else tree
