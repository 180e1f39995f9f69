"""Several: what the report of several runs says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mtlkit import panels
from mtlkit.report import figures, recipe
from mtlkit.report.compare import Interval, interval, mean
from mtlkit.report.delta import (
    Comparison,
    Difference,
    against_first,
    against_single_tasks,
)
from mtlkit.report.figures import Bar, Series
from mtlkit.report.group import Group, group, measure
from mtlkit.report.parts import (
    ARROWS,
    Grid,
    Key,
    Panel,
    Section,
    images_per_second,
    number,
    option,
    picture,
    signed,
)
from mtlkit.report.read import Read
from mtlkit.report.verdict import LEVEL, headline, notes

SAMPLES = 4
"""Samples of the gallery."""
MOST = 8
"""Groups whose pictures are shown."""


@dataclass
class Mean:
    """A group's metric on test: mean, half of its 95 % interval, number of seeds."""

    key: str
    value: str
    spread: str
    seeds: int


def means(groups: Sequence[Group]) -> list[tuple[Group, list[Mean | None]]]:
    """A row per group, a column per primary metric of any."""
    return [(g, [_mean(g, key) for key in primaries(groups)]) for g in groups]


def primaries(groups: Sequence[Group]) -> list[str]:
    """The primary metrics of all tasks of all groups."""
    return list({key: None for g in groups for key in g.runs[0].primary.values()})


def _mean(g: Group, key: str) -> Mean | None:
    values = [value for _, value in g.values(key)]
    if not values:
        return None
    found = interval(values)
    spread = f"± {number(found.high - found.mean)}" if found.high is not None else ""
    return Mean(key, number(found.mean), spread, len(values))


def delta_bars(found: Comparison) -> list[Panel]:
    """Δm in both forms."""
    forms = [
        ("Δm (b), mean over tasks, in %, higher is better →", 1,
         [(d, d.by_task, d.interval_by_task) for d in found.deltas]),
        ("Δm (a), mean over metrics, in %, ← lower is better", -1,
         [(d, d.flat, d.interval_flat) for d in found.deltas]),
    ]  # fmt: skip
    return [
        Panel(title, figures.bars([
            Bar(d.label, spoken(about), [v for _, v in values], about, better)
            for d, values, about in rows
        ]))
        for title, better, rows in forms if rows
    ]  # fmt: skip


def spoken(about: Interval, digits: int = 1) -> str:
    """Such as ``+2.1 (+1.0 to +3.2)``."""
    text = signed(about.mean, digits)
    if about.low is None or about.high is None:
        return text
    return f"{text} ({signed(about.low, digits)} to {signed(about.high, digits)})"


@dataclass
class Cost:
    """What a group's optimiser step costs."""

    label: str
    milliseconds: str
    images_per_second: str
    memory: str


def costs(groups: Sequence[Group]) -> list[Cost]:
    """Medians of what was logged, and peak memory where results.json has ``peak_bytes``."""
    found = []
    for g in groups:
        speeds = [speed for run in g.runs if (speed := images_per_second(run))]
        if not speeds:
            continue
        config, speed = g.runs[0].config, mean(speeds)
        images = config["batch_size"] * config["accumulate"] * g.runs[0].env.get("processes", 1)
        peaks = [run.results["peak_bytes"] for run in g.runs if run.results.get("peak_bytes")]
        memory = f"{max(peaks) / 2**20:,.0f} MiB" if peaks else ""
        found.append(Cost(g.label, f"{1000 * images / speed:.0f}", f"{speed:.0f}", memory))
    return found


def machines(groups: Sequence[Group]) -> bool:
    """Whether all runs were on one kind of machine, as far as their files say."""
    kinds = {(run.env.get("device"), run.env.get("platform"), run.env.get("cpus"))
             for g in groups for run in g.runs}  # fmt: skip
    return len(kinds) == 1


def curves(groups: Sequence[Group]) -> list[Section]:
    """By task, loss and primary metric on val: a faint line per run, a strong one per mean."""
    sections = []
    keys = [Key(g.label, i) for i, g in enumerate(groups)]
    for key in primaries(groups):
        id = key.split("/")[0]
        signs = {k: s for g in groups for k, s in g.runs[0].signs.items()} | {f"{id}/loss": -1}
        made = []
        for name in (f"{id}/loss", key):
            series = [line for i, g in enumerate(groups) for line in _lines(g, name, i)]
            if series:
                made.append(Panel(f"{name} {ARROWS[signs[name]]} on val", figures.curves(series)))
        used = [k for k, g in zip(keys, groups, strict=True) if id in g.tasks]
        if made:
            sections.append(Section(id, made, used))
    return sections


def _lines(g: Group, key: str, number: int) -> Iterator[Series]:
    runs = [points for run in g.runs if (points := panels.points(run.lines, "val", key))]
    steps = {tuple(step for step, _ in points) for points in runs}
    if len(runs) > 1 and len(steps) == 1:
        means = [mean([points[i][1] for points in runs]) for i in range(len(runs[0]))]
        yield Series(list(zip(steps.pop(), means, strict=True)), number)
        yield from (Series(points, number, faint=True) for points in runs)
    else:
        yield from (Series(points, number) for points in runs)


def galleries(groups: Sequence[Group]) -> list[Grid]:
    """By task, the same samples for every group: input, truth, then each prediction."""
    drawn = [(g, run) for g in groups if (run := next((r for r in g.runs if r.gallery), None))]
    found = []
    for id in {id: None for g, _ in drawn for id in g.tasks}:
        mine = [(g, run) for g, run in drawn if id in g.tasks]
        first = mine[0][1]
        same = [(g, run) for g, run in mine if measure(run) == measure(first)][:MOST]
        shared = [x for x in first.gallery["ids"]
                  if all(x in run.gallery["ids"] for _, run in same)][:SAMPLES]  # fmt: skip
        places = [(first, ["input"]), (first, [id, "truth"])]
        places += [(run, [id, "predicted"]) for _, run in same]
        titles = [["input"], ["truth"], *([g.label] for g, _ in same)]
        rows = [(x, [_picture(run, title, x) for run, title in places]) for x in shared]
        if rows:
            found.append(Grid(id, titles, rows))
    return found


def _picture(run: Read, title: Sequence[str], sample: str) -> str | None:
    column = next(c for c in run.gallery["columns"] if c["title"] == title)
    return picture(run, column["files"][run.gallery["ids"].index(sample)])


@dataclass
class Listed:
    """A run in the table of runs."""

    name: str
    label: str
    seed: int
    status: str
    best_epoch: str
    options: str


def listing(groups: Sequence[Group]) -> tuple[str, list[Listed]]:
    """What all runs set alike, and of each run the rest."""
    own = {
        run.name: {name: f"{name} {value}" for name, value, _ in map(
            option, recipe.differences(run))}
        for g in groups for run in g.runs
    }  # fmt: skip
    alike = set.intersection(*(set(words.values()) for words in own.values()))
    first = next(iter(own.values()))
    found = [
        Listed(
            run.name, g.label, run.config["seed"], run.status,
            str(run.best["epoch"] + 1) if run.best else "",
            " ".join(word for word in own[run.name].values() if word not in alike),
        )
        for g in groups for run in g.runs
    ]  # fmt: skip
    return " ".join(word for word in first.values() if word in alike), found


def page(runs: Sequence[Read]) -> dict[str, Any]:
    """Everything the template needs."""
    groups = group(runs)
    found = against_single_tasks(groups)
    alike, listed_runs = listing(groups)
    keys = primaries(groups)
    signs = {key: sign for g in groups for key, sign in g.runs[0].signs.items()}
    return {
        "title": f"{len(runs)} runs",
        "answer": headline(groups, found),
        "warnings": notes(groups, found),
        "delta_bars": delta_bars(found),
        "deltas": [(d, spoken(d.interval_by_task), spoken(d.interval_flat)) for d in found.deltas],
        "least_p": found.least_p,
        "level": LEVEL,
        "differences": [_difference(d) for d in against_first(groups)],
        "reference": _reference(groups),
        "means": means(groups),
        "keys": [(key, ARROWS[signs[key]]) for key in keys],
        "costs": costs(groups),
        "one_machine": machines(groups),
        "curves": curves(groups),
        "galleries": galleries(groups),
        "alike": alike,
        "runs": listed_runs,
    }


def _reference(groups: Sequence[Group]) -> str:
    finished = [g for g in groups if g.by_seed]
    return max(finished, key=lambda g: len(g.tasks)).label if finished else ""


def _difference(d: Difference) -> tuple[Difference, str]:
    return d, spoken(d.interval, 3)
