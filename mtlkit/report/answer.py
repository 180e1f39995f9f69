"""Answer: what a run comes to in one line, and what to watch out for."""

from collections.abc import Iterator

from mtlkit import panels
from mtlkit.report.parts import listed, number, plural, signed
from mtlkit.report.read import Read

FEW = 50
"""Samples below which a result on a split is called uncertain."""
RISING = 0.01
"""Share of its score that a run gained in its last quarter if it is called still rising."""
DROP = 0.1
"""Share of a metric that is lost from val to test before it is worth a word."""
NEGLECTED = 0.02
"""Share of all weights below which a task is called neglected."""


def headline(run: Read) -> str:
    """What was trained, how well, and which epoch was best, in one line."""
    tasks = listed(run.tasks)
    together = " together" if len(run.tasks) > 1 else ""
    verb = "were" if len(run.tasks) > 1 else "was"
    data = run.config["data"]["name"]
    if not run.lines:
        return f"{tasks} {verb} to be trained{together} on {data}; nothing was logged."
    done = plural(run.steps, "step")
    if not run.finished:
        planned = f" of {run.about['steps']:,}" if "steps" in run.about else ""
        start = f"This run did not finish: {tasks} {verb} trained{together} on {data} for {done}"
        return f"{start}{planned}. {_scores(run, 'val')}".strip()
    epochs = 1 + max(line["epoch"] for line in run.lines)
    start = f"{tasks} {verb} trained{together} on {data} for {plural(epochs, 'epoch')} ({done})."
    split = "test" if run.test else "val"
    best = f"Best on val was epoch {run.best['epoch'] + 1} of {epochs}." if run.best else ""
    return " ".join(filter(None, [start, _scores(run, split), best]))


def _scores(run: Read, split: str) -> str:
    values = run.test if split == "test" else run.best
    found = [f"{key} {number(values[key])}" for key in run.primary.values()
             if values.get(key) is not None]  # fmt: skip
    where = "On test" if split == "test" else "The best so far on val"
    where = "On val" if split == "val" and run.finished else where
    return f"{where}: {', '.join(found)}." if found else ""


def warnings(run: Read) -> list[str]:
    """What to watch out for."""
    return [*_unfinished(run), *_course(run), *_samples(run), *_gaps(run), *_conflicts(run),
            *_neglected(run), *_never(run)]  # fmt: skip


def _unfinished(run: Read) -> Iterator[str]:
    if run.finished:
        return
    why = "it has no results.json" if not run.results else f"its status is {run.status}"
    yield (f"This run did not finish ({why}): it was interrupted, failed, or is still running. "
           "There is no result on test, and what follows is what there is.")  # fmt: skip
    if not run.gallery:
        yield "There are no pictures: they are drawn when a run ends."


def _course(run: Read) -> Iterator[str]:
    val = run.split("val")
    if not run.finished or len(val) < 2:
        return
    at = next(i for i, line in enumerate(val) if line["step"] == run.best["step"])
    last, before = (run.score(val[i]) for i in (-1, -1 - max(1, len(val) // 4)))
    if at == len(val) - 1 and last and before and last - before > RISING * abs(last):
        yield "The last epoch was the best one and val was still rising: more may give more."
    elif len(val) > 3 and at < len(val) / 2:
        yield (f"The best epoch came early ({at + 1} of {len(val)}) and val got worse after it: "
               "fewer epochs, a lower rate or stronger augmentation may give more.")  # fmt: skip


def _samples(run: Read) -> Iterator[str]:
    if overfit := run.config.get("overfit"):
        yield (f"--overfit {overfit}: all numbers are of the {plural(overfit, 'training image')} "
               "that it was trained on.")  # fmt: skip
        return
    for split in ("val", "test"):
        size = run.about.get("samples", {}).get(split)
        if size is not None and size < FEW:
            said = f"{split} has only {plural(size, 'sample')}" if size else f"{split} has none"
            yield f"{said}: numbers on it are uncertain." if size else f"{said}."
    empty = [key for key in run.primary.values() if run.finished and run.test
             and run.test.get(key) is None]  # fmt: skip
    if empty:
        yield f"Without any label on test, and so without a number: {listed(empty)}."


def _gaps(run: Read) -> Iterator[str]:
    for key in run.primary.values():
        val, test, sign = run.best.get(key), run.test.get(key), run.signs.get(key, 0)
        if val and test is not None and sign * (val - test) > DROP * abs(val):
            yield (f"{key} is {number(test)} on test and {number(val)} on val, where the best "
                   "epoch was chosen: trust test.")  # fmt: skip


def _conflicts(run: Read) -> Iterator[str]:
    seen = panels.looks(run.lines, run.tasks)
    for pair in panels.pairs(run.tasks):
        cosines = [value for _, value in panels.points(seen, "train", f"{pair}/cosine")]
        if cosines and (mean := sum(cosines) / len(cosines)) < 0:
            a, b = pair.split("+")
            yield (f"The gradients of {a} and {b} pull apart (mean cosine {signed(mean, 2)}): "
                   "training them together may cost one of them.")  # fmt: skip


def _neglected(run: Read) -> Iterator[str]:
    last = next((line for line in reversed(run.lines) if line["split"] == "train"), {})
    weights = {id: last.get(f"{id}/weight") for id in run.tasks}
    known = {id: abs(weight) for id, weight in weights.items() if weight is not None}
    for id, weight in known.items():
        if weight < NEGLECTED * sum(known.values()):
            yield f"{id} hardly counts at the end: its weight is {number(last[f'{id}/weight'])}."


def _never(run: Read) -> Iterator[str]:
    """Classes that occur and are never answered."""
    for table in run.tables.get("test", ()):
        if not table.confusion:
            continue
        answered = [sum(v or 0 for v in column) for column in zip(*table.values, strict=True)]
        gone = [name for name, row, times in zip(table.rows, table.values, answered, strict=True)
                if not times and any(row)]  # fmt: skip
        if gone:
            more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
            task = table.title.partition("/")[0]
            yield f"{task} never answers {', '.join(gone[:3])}{more} on test."
