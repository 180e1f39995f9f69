"""The training loop. ``python -m mtlkit.train`` is the command ``mtlkit train``."""

if __name__ == "__main__":  # the command line decides what needs importing
    import sys

    from mtlkit.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))

import itertools
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from mtlkit.checkpoint import load_tree
from mtlkit.data import Split
from mtlkit.evaluate import Scores, score
from mtlkit.interruption import Asked, Interrupted, Interruption
from mtlkit.loader import Batch, Batches, Prepared, read
from mtlkit.model import Model, TaskBatch
from mtlkit.nonfinite import Fault, save_batch
from mtlkit.record import peak_bytes, write_tables
from mtlkit.saving import on_main, save_best, save_last
from mtlkit.session import Run
from mtlkit.settings import Settings
from mtlkit.telling import bar, evaluation
from mtlkit.trackers import log_pictures
from mtlkit.trouble import explained

GALLERY_SIZE = 6


def train(run: Run) -> dict[str, Any]:
    """Train to the end, evaluate on test once, write everything; returns results.json's content.

    Raises:
        RunError: it cannot go on; what was saved can be gone on from.
    """
    run.began = time.monotonic() - run.progress.seconds
    try:
        run.observers.notify("mtlkit_run_started", run=run)
        summary = _train_and_finish(run)
    except BaseException as error:
        better = explained(error, run.again)
        run.observers.notify("mtlkit_run_failed", run=run, error=better or error)
        if better is not None:
            raise better from error
        raise
    finally:
        run.folder.unlock()
    run.observers.notify("mtlkit_run_ended", run=run, summary=summary)
    run.accelerator.end_training()
    return summary


def _train_and_finish(run: Run) -> dict[str, Any]:
    steps, seconds = run.settings.save_cadence()
    run.engine.watch.tell = partial(tell, run)
    with Interruption(run.accelerator, save_every=steps, save_after=seconds) as interruption:
        reason = _train(run, interruption)
        if interruption.signal:
            _save(run, interruption)
            run.say(f"stopped by a signal; go on with: {run.again}")
            on_main(run, lambda: draw(run))
            raise SystemExit(128 + interruption.signal)
    if reason:
        run.say(f"stopped early: {reason}")
    return _finish(run)


def _save(run: Run, interruption: Interruption) -> None:
    """Write ``checkpoints/last``."""
    run.engine.settle()
    run.progress.seconds = time.monotonic() - run.began
    save_last(run)
    interruption.saved()


def _train(run: Run, interruption: Interruption) -> str | None:
    """Epochs until the planned steps are done; returns why it stopped earlier, if it did."""
    progress = run.progress
    loader = run.loader("train", train=True)
    batches = loader.batch_sampler.total  # type: ignore[union-attr]
    run.model.train()
    with bar(run) as shown:
        while progress.step < run.steps or progress.evaluated < progress.step:
            if progress.step < run.steps and progress.batch < batches:
                run.observers.notify("mtlkit_epoch_started", run=run)
                for asked in _epoch(run, loader, interruption, shown):
                    if asked.save:
                        _save(run, interruption)
            try:
                scores = None if interruption.signal else _evaluate(run, interruption)
            except Interrupted:
                scores = None
            if scores is None:
                return None
            if progress.batch >= batches:
                progress.epoch, progress.batch = progress.epoch + 1, 0
            _save(run, interruption)
            if progress.best_step == progress.step:  # should it not be written, it is in last
                save_best(run, scores)
            reason = _reason_to_stop(run, scores)
            if reason:
                return reason
    return None


def _reason_to_stop(run: Run, scores: Scores) -> str | None:
    stale, patience = run.progress.stale, run.settings.patience
    if patience and stale >= patience:
        return f"no better checkpoint in {stale} evaluations"
    return run.observers.stop_reason(run, {"split": "val", **scores})


def _epoch(
    run: Run, loader: DataLoader[Batch], interruption: Interruption, shown: Any
) -> Iterator[Asked]:
    """What is left of one epoch, or of the planned steps; after each it yields what is asked."""
    settings, progress = run.settings, run.progress
    batches: Batches = loader.batch_sampler  # type: ignore[assignment]
    batches.epoch, batches.start = progress.epoch, progress.batch
    since, images = time.monotonic(), 0
    shown.set_description(f"epoch {progress.epoch + 1}/{settings.epochs}")
    for window in windows(loader, run.model, settings):
        if run.scheduler is not None:
            run.scheduler.step_update(progress.step)
        result = run.engine(window, step=progress.step, epoch=progress.epoch)
        progress.step += 1
        progress.batch += len(window)
        progress.faults += bool(result.faults)
        run.recent.append(result)
        images += sum(len(batch.present[0]) for batch in window)
        shown.update()
        run.observers.notify("mtlkit_step_ended", run=run, step=result)
        if progress.step % settings.log_every == 0:
            speed = images * run.accelerator.num_processes / (time.monotonic() - since)
            values = _log_training(run, speed)
            losses = {id: f"{values[f'{id}/loss']:.3f}" for id in run.model.tasks}
            shown.set_postfix({**losses, "images/s": f"{speed:.0f}"})
            since, images = time.monotonic(), 0
        asked = interruption.after_step(progress.step)
        yield asked
        if progress.step >= run.steps or asked.end:
            break


def tell(run: Run, fault: Fault) -> str:
    """Say what was not finite, and keep the batch it came from; returns where it is."""
    file = run.folder.path / "bad_batch.safetensors"
    note = f" (that batch is kept in {file})"
    if run.settings.on_nonfinite != "raise":
        run.say(f"note: {fault}{note}: {run.settings.on_nonfinite}")
    if fault.batch is not None:
        try:
            save_batch(file, fault.batch, list(run.model.tasks), step=fault.step)
        except OSError as error:
            run.say(f"note: cannot write {file}: {error}")
    return note


def windows(
    loader: DataLoader[Batch], model: Model, settings: Settings
) -> Iterator[list[TaskBatch]]:
    """Batches on the device, as many at a time as one optimiser step takes."""
    window: list[TaskBatch] = []
    for batch in read(loader):
        window.append(model.prepare(batch, channels_last=settings.channels_last))
        if len(window) == settings.accumulate:
            yield window
            window = []
    if window:
        yield window


def _log_training(run: Run, speed: float) -> dict[str, float]:
    """Log the means of the last steps; here the host waits for the device."""
    ids, recent = list(run.model.tasks), run.recent
    losses = [torch.stack([r.losses[id] for r in recent]).nanmean().item() for id in ids]
    weights = [torch.stack([r.weights[id] for r in recent]).nanmean().item() for id in ids]
    values = {f"{id}/loss": loss for id, loss in zip(ids, losses, strict=True)}
    values |= {f"{id}/weight": weight for id, weight in zip(ids, weights, strict=True)}
    values |= _conflicts(ids, [r.gramian for r in recent if r.gramian is not None])
    for name in {name: None for r in recent for name in r.report}:
        noted = [r.report[name] for r in recent if name in r.report]
        values[f"balancer/{name}"] = sum(noted) / len(noted)
    values["loss"] = sum(loss for loss in losses if loss == loss)
    values["lr"] = run.optimizer.param_groups[0]["lr"]
    values["images_per_second"] = speed
    if run.progress.faults:
        values["nonfinite_steps"] = run.progress.faults
    run.log("train", values)
    run.recent = []
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


def _evaluate(run: Run, interruption: Interruption) -> Scores:
    """Evaluate on val and note whether the model is the best so far; returns its metrics."""
    progress = run.progress
    run.engine.settle()
    run.engine.share_buffers()
    values = run.evaluate("val", interruption=interruption)
    run.log("val", values)
    progress.evaluated = progress.step
    run.observers.notify("mtlkit_evaluated", run=run, result={"split": "val", **values})
    tasks = run.model.tasks.values()
    now = score(values, tasks, run.settings.monitor) if values else float(progress.step)
    better = now > progress.best_score or progress.best_step == 0
    if better:
        progress.best_score, progress.best_step, progress.stale = now, progress.step, 0
    else:
        progress.stale += 1
    run.say("\n".join(evaluation(run, values, better=better)))
    return values


def _finish(run: Run) -> dict[str, Any]:
    """Take the best model, evaluate it once on test, and write results and pictures."""
    progress = run.progress
    run.accelerator.wait_for_everyone()
    best = load_tree(run.folder.best)
    run.model.load_state_dict(best["model"])
    summary: dict[str, Any] = {
        "test": run.evaluate("test"),
        "val": best["val"],
        "best_step": best["step"],
        "steps": progress.step,
        "balancer": {"name": run.config["balancer"]["name"]},
        "seconds": time.monotonic() - run.began,
        "peak_bytes": peak_bytes(run.accelerator.device),
        "status": "ok",
    }
    run.observers.notify("mtlkit_evaluated", run=run, result={"split": "test", **summary["test"]})
    epoch = max(0, progress.epoch - 1)

    def write() -> None:
        run.folder.log(progress.step, epoch, "test", summary["test"])
        run.folder.write_results(summary)
        write_tables(run.folder.path, "test", summary["test"])
        draw(run)

    on_main(run, write)
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
        with Image.open(run.folder.path / "gallery" / "samples.png") as grid:
            pictures = {"gallery": np.asarray(grid.convert("RGB"))}
        log_pictures(run.accelerator, pictures, run.progress.step)
