"""Single: what the report of one run says."""

import itertools
from dataclasses import dataclass
from typing import Any

from mtlkit import panels
from mtlkit.report import figures, recipe
from mtlkit.report.answer import headline, warnings
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
    number,
    option,
)
from mtlkit.report.read import Read

SHOWN = 6
"""Samples of the gallery."""
ATTENTION = 3
"""Samples whose attention masks are shown."""


@dataclass
class Row:
    """A metric: its name, whether it stands for the task, its direction, and val and test."""

    key: str
    primary: bool
    arrow: str
    val: str
    test: str


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
