"""Single: what the report of one run says."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mtlkit import panels
from mtlkit.report import figures, recipe
from mtlkit.report.figures import Series
from mtlkit.report.parts import (
    ARROWS,
    Counted,
    Grid,
    Key,
    Panel,
    Section,
    counted,
    duration,
    environment,
    grid,
    image_size,
    images_per_second,
    listed,
    number,
    option,
    plural,
    signed,
)
from mtlkit.report.read import Read

SHOWN = 6
"""Samples of the gallery."""
ATTENTION = 3
"""Samples whose attention masks are shown."""
FEW = 50
"""Samples below which a result on a split is called uncertain."""
RISING = 0.01
"""Share of its score that a run gained in its last quarter if it is called still rising."""
DROP = 0.1
"""Share of a metric that is lost from val to test before it is worth a word."""
NEGLECTED = 0.02
"""Share of all weights below which a task is called neglected."""


@dataclass
class Row:
    """A metric: its name, whether it stands for the task, its direction, and val and test."""

    key: str
    primary: bool
    arrow: str
    val: str
    test: str


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
    last, before = run.score(val[-1]), run.score(val[-1 - len(val) // 4 or -2])
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


def rows(run: Read) -> list[tuple[str, list[Row]]]:
    """By task, its metrics and its loss."""
    found = []
    for id, metrics in run.metrics.items():
        signs = {f"{id}/{name}": sign for name, sign in metrics.items()} | {f"{id}/loss": -1}
        found.append((id, [
            Row(key, key == run.primary.get(id), ARROWS[sign],
                number(run.best.get(key)), number(run.test.get(key)))
            for key, sign in signs.items()
        ]))  # fmt: skip
    return found


def curves(run: Read) -> list[Section]:
    """A section per task: its loss on train and val, and its metrics on val."""
    best = run.best.get("step")
    sections = []
    for id, metrics in run.metrics.items():
        made, keys = [], [Key("val", 1)]
        loss = [Series(points, i) for i, split in enumerate(("train", "val"))
                if (points := panels.points(run.lines, split, f"{id}/loss"))]  # fmt: skip
        if panels.points(run.lines, "train", f"{id}/loss"):
            keys.insert(0, Key("train", 0))
        if loss:
            made.append(Panel(f"{id}/loss {ARROWS[-1]}", figures.curves(loss, best=best)))
        for name, sign in metrics.items():
            if points := panels.points(run.lines, "val", f"{id}/{name}"):
                svg = figures.curves([Series(points, 1)], best=best)
                made.append(Panel(f"{id}/{name} {ARROWS[sign]}".strip(), svg))
        if made:
            sections.append(Section(id, made, keys))
    return sections


def balance(run: Read) -> Section | None:
    """The tasks' weights over the steps, their gradients' norms, and how well these agree."""
    keys = [Key(id, i) for i, id in enumerate(run.tasks)]
    section = Section("Balance", [], keys)
    weights = _by_task(run, "weight")
    constant = {value for series in weights for _, value in series.points}
    if len(run.tasks) < 2 or not weights:
        return None
    if len(constant) == 1:
        section.note = f"The weight of every task was {number(constant.pop())} at every step."
    else:
        section.panels.append(Panel("weight of each task's gradient", figures.curves(weights)))
    seen = panels.looks(run.lines, run.tasks)
    if seen:
        norms = figures.curves(_by_task(run, "gradient_norm"), log=True)
        section.panels.append(Panel("norm of each task's gradient", norms))
    return section


def _by_task(run: Read, name: str) -> list[Series]:
    found = [Series(panels.points(run.lines, "train", f"{id}/{name}"), i)
             for i, id in enumerate(run.tasks)]  # fmt: skip
    return [series for series in found if series.points]


def conflict_map(run: Read) -> str:
    """The cosine of each pair of tasks over the steps; empty if gradients were not looked at."""
    seen = panels.looks(run.lines, run.tasks)
    return figures.conflict_map(seen, run.tasks) if seen and len(run.tasks) > 1 else ""


def galleries(run: Read) -> list[Grid]:
    """The fixed samples with truth and prediction."""
    if not run.gallery:
        return []
    return [grid(run, "", run.gallery["columns"], SHOWN)]


def attention(run: Read) -> list[Grid]:
    """A backbone's attention masks by task."""
    masks = run.gallery.get("attention", {})
    if not masks:
        return []
    seen = run.gallery["columns"][:1]
    return [grid(run, id, [*seen, *columns], ATTENTION) for id, columns in masks.items()]


def tables(run: Read) -> dict[str, list[list[Counted]]]:
    """What tasks counted: by split, the tables of each task; empty if nothing was."""
    found = {}
    for split in ("test", "val"):
        made = [counted(table, split) for table in run.tables.get(split, ())]
        found[split] = [list(of) for _, of in itertools.groupby(made, lambda it: it.task)]
    return found if any(found.values()) else {}


def facts(run: Read) -> list[tuple[str, str]]:
    """The run in a few words."""
    config, about, env = run.config, run.about, run.env
    sizes = ", ".join(f"{n:,} {split}" for split, n in about.get("samples", {}).items())
    effective = config["batch_size"] * config["accumulate"] * env.get("processes", 1)
    speed, parameters = images_per_second(run), about.get("parameters")
    found: list[tuple[str, Any]] = [
        ("data", " · ".join(filter(None, (config["data"]["name"], sizes, image_size(run))))),
        ("backbone", config["backbone"]["name"]),
        ("balancer", config["balancer"]["name"]),
        ("images per step", f"{effective}"),
        ("time", "seconds" in run.results and duration(run.results["seconds"])),
        ("speed", speed and f"{speed:.0f} images per second, as logged in training"),
        ("device", env.get("device")),
        ("parameters", parameters and f"{parameters['shared']:,} shared; "
         + ", ".join(f"{n:,} {id}" for id, n in parameters["own"].items())),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in found if value]


def page(run: Read) -> dict[str, Any]:
    """Everything the template needs."""
    return {
        "title": run.name,
        "answer": headline(run),
        "warnings": warnings(run),
        "facts": facts(run),
        "rows": rows(run) if run.best or run.test else [],
        "best_epoch": run.best.get("epoch", -1) + 1,
        "curves": curves(run),
        "best_step": run.best.get("step"),
        "balance": balance(run),
        "conflict_map": conflict_map(run),
        "galleries": galleries(run),
        "attention": attention(run),
        "tables": tables(run),
        "options": [option(changed) for changed in recipe.differences(run)],
        "command": recipe.command(run),
        "environment": environment(run.env),
        "problems": run.about.get("problems", []),
    }
