"""Page: report.html, report.md and results.csv from what the runs' files say."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mtlkit.report.delta import against_single_tasks
from mtlkit.report.group import Group, group
from mtlkit.report.read import Read

COLUMNS = ("run", "recipe", "seed", "status", "split", "metric", "value", "better")
SECTIONS = (
    "rows", "best_epoch", "best_step", "balance", "conflict_map", "attention", "tables",
    "options", "command", "environment", "facts", "problems", "delta_bars", "deltas", "least_p",
    "level", "differences", "reference", "means", "keys", "costs", "one_machine", "alike", "runs",
)  # fmt: skip
"""What one of the two pages has and the other lacks."""


def html(content: Mapping[str, Any]) -> str:
    """The page; all that comes from files is escaped."""
    loader = PackageLoader("mtlkit.report")
    environment = Environment(
        autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    style, _, _ = loader.get_source(environment, "report.css")
    given = {**dict.fromkeys(SECTIONS), **content, "style": Markup(style)}
    return environment.get_template("report.html").render(given)


def results(runs: Sequence[Read]) -> str:
    """results.csv: a line for every run, split and metric, and for every Δm."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    groups = group(runs)
    for g in groups:
        for run in g.runs:
            start = (run.name, g.label, run.config["seed"], run.status)
            writer.writerows((*start, *row) for row in _values(run))
    writer.writerows(_deltas(groups))
    return file.getvalue()


def _values(run: Read) -> Iterator[tuple[Any, ...]]:
    words = {1: "higher", -1: "lower", 0: ""}
    for split, values in (("val", run.best), ("test", run.test)):
        for key, value in values.items():
            if "/" in key or key == "loss":
                yield split, key, value, words[run.signs.get(key, -1)]


def _deltas(groups: Sequence[Group]) -> Iterator[tuple[Any, ...]]:
    for delta in against_single_tasks(groups).deltas:
        forms = (("delta_m_by_task", "higher", delta.by_task),
                 ("delta_m_flat", "lower", delta.flat))  # fmt: skip
        for name, better, values in forms:
            for seed, value in values:
                yield "", delta.label, seed, "ok", "test", name, value, better


def markdown(content: Mapping[str, Any]) -> str:
    """report.md: the answer and the tables."""
    given = {**dict.fromkeys(SECTIONS), **content}
    parts = [f"# {_plain(given['title'])}", _plain(given["answer"])]
    parts += ["\n".join(f"- {_plain(text)}" for text in given["warnings"])]
    for title, head, rows in _tables(given):
        parts += [f"## {title}", _table(head, rows)]
    if given["command"]:
        parts += ["## Again", "    " + given["command"].replace("\n", " ")]
    return "\n\n".join(filter(None, parts)) + "\n"


def _tables(given: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str], list[Sequence[Any]]]]:
    """Title, heads and rows."""
    if given["rows"]:
        yield "Results", ("metric", "val", "test"), [
            (f"{row.key} {row.arrow}", row.val, row.test)
            for _, rows in given["rows"] for row in rows
        ]  # fmt: skip
    if given["deltas"]:
        yield "Together or alone?", ("recipe", "Δm (b) ↑, %", "Δm (a) ↓, %", "seeds"), [
            (d.label, by_task, flat, len(d.flat)) for d, by_task, flat in given["deltas"]
        ]  # fmt: skip
    if given["means"]:
        head = ["recipe", *(f"{key} {arrow}" for key, arrow in given["keys"]), "seeds"]
        yield "Results on test", head, [
            (g.label, *(f"{c.value} {c.spread}" if c else "" for c in cells), len(g.by_seed))
            for g, cells in given["means"]
        ]  # fmt: skip
    if given["runs"]:
        yield "The runs", ("run", "recipe", "seed", "status"), [
            (run.name, run.label, run.seed, run.status) for run in given["runs"]
        ]  # fmt: skip


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([_plain(str(x)) for x in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Without anything that Markdown or HTML would take for more than text."""
    words = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", words).replace("&", "&amp;")
