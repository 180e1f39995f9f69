"""The training loop. ``python -m mtlkit.train`` is the command ``mtlkit train``."""

if __name__ == "__main__":  # the command line decides what needs importing
    import sys

    from mtlkit.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from mtlkit.checkpoint import load_tree, save_tree
from mtlkit.data import Split
from mtlkit.errors import RunError
from mtlkit.evaluate import score
from mtlkit.interruption import Interruption
from mtlkit.loader import Batch, Batches, Prepared
from mtlkit.model import Model, TaskBatch
from mtlkit.model_folder import save_model
from mtlkit.resume import save_last
from mtlkit.session import Run
from mtlkit.settings import Settings
from mtlkit.step import StepResult

GALLERY_SIZE = 6


def train(run: Run) -> dict[str, Any]:
    """Train to the end, evaluate on test once, write everything; returns results.json's content."""
    started = time.monotonic() - run.progress.seconds
    try:
        run.observers.notify("mtlkit_run_started", run=run)
        with Interruption() as interruption:
            reason = _train(run, interruption, started)
            run.progress.seconds = time.monotonic() - started
            if interruption.signal:
                save_last(run)
                again = f"mtlkit train --resume {run.folder.path}"
                run.say(f"stopped by a signal; go on with: {again}")
                raise SystemExit(128 + interruption.signal)
        if reason:
            run.say(f"stopped early: {reason}")
        summary = _finish(run, started)
    except BaseException as error:
        run.observers.notify("mtlkit_run_failed", run=run, error=error)
        raise
    run.observers.notify("mtlkit_run_ended", run=run, summary=summary)
    run.accelerator.end_training()
    return summary


def _train(run: Run, interruption: Interruption, started: float) -> str | None:
    """Epochs until the planned steps are done; returns why it stopped earlier, if it did."""
    settings, progress = run.settings, run.progress
    loader = run.loader("train", train=True)
    run.model.train()
    while progress.step < run.steps:
        run.observers.notify("mtlkit_epoch_started", run=run)
        _epoch(run, loader, interruption)
        if interruption.signal:
            return None
        finished = progress.batch >= loader.batch_sampler.total  # type: ignore[union-attr]
        run.engine.share_buffers()
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


def _epoch(run: Run, loader: DataLoader[Batch], interruption: Interruption) -> None:
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
        result = run.engine(window, step=progress.step, epoch=progress.epoch)
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
    values |= _conflicts(ids, [r.gramian for r in recent if r.gramian is not None])
    for name in {name for r in recent for name in r.report}:
        noted = [r.report[name] for r in recent if name in r.report]
        values[f"balancer/{name}"] = sum(noted) / len(noted)
    values["loss"] = sum(loss for loss in losses if loss == loss)
    values["lr"] = run.optimizer.param_groups[0]["lr"]
    values["images_per_second"] = speed
    run.log("train", values)
    return values


def _conflicts(ids: Sequence[str], gramians: Sequence[Tensor]) -> dict[str, float]:
    """Means over steps of each task's gradient norm and each pair's cosine."""
    if not gramians:
        return {}
    gramian = torch.stack(list(gramians))  # [steps, T, T]
    norms = gramian.diagonal(dim1=1, dim2=2).sqrt()
    lengths = norms[:, :, None] * norms[:, None]
    mean_norm = norms.nanmean(0).tolist()
    cosine = torch.where(lengths > 0, gramian / lengths, torch.nan).nanmean(0).tolist()
    values = {f"{id}/gradient_norm": mean_norm[i] for i, id in enumerate(ids)}
    for i, j in itertools.combinations(range(len(ids)), 2):
        values[f"{ids[i]}+{ids[j]}/cosine"] = cosine[i][j]
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
            best = {"model": run.model.state_dict(), "step": progress.step, "val": values}
            save_tree(run.folder.best, best)
            save_model(run.folder.model, run.model, run.model_config)
    else:
        progress.stale += 1
    shown = [f"{t.id}/{t.primary} {values.get(f'{t.id}/{t.primary}', math.nan):.3f}" for t in tasks]
    run.say(
        f"epoch {progress.epoch + 1:3d}/{run.settings.epochs}  step {progress.step:6d}  "
        f"val: loss {values.get('loss', math.nan):.3f}  {'  '.join(shown)}{'  best' * better}"
    )
    return result


def _finish(run: Run, started: float) -> dict[str, Any]:
    """Take the best model, evaluate it once on test, and write results and pictures."""
    progress = run.progress
    run.accelerator.wait_for_everyone()
    best = load_tree(run.folder.best)
    run.model.load_state_dict(best["model"])
    summary: dict[str, Any] = {
        "test": run.evaluate("test"),
        "val": best["val"],
        "best_step": progress.best_step,
        "steps": progress.step,
        "balancer": {"name": run.config["balancer"]["name"]},
        "seconds": time.monotonic() - started,
        "status": "ok",
    }
    result = {"split": "test", **summary["test"]}
    run.observers.notify("mtlkit_evaluated", run=run, result=result)
    if run.main:
        run.progress.epoch = max(0, progress.epoch - 1)
        run.folder.log(progress.step, run.progress.epoch, "test", summary["test"])
        run.folder.write_results(summary)
        draw(run)
    return summary


def draw(run: Run) -> None:
    """Write the pictures of a run: curves, and a gallery of the first samples of val."""
    from mtlkit.plots import curves, gallery  # late: matplotlib would delay the first step

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
