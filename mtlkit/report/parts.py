"""Parts: what both pages, of one run and of several, are made of."""

import base64
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtlkit.report import figures
from mtlkit.report.group import shown
from mtlkit.report.read import Read, Table
from mtlkit.report.recipe import UNKNOWN, Changed
from mtlkit.source import spell

MINUS = "\N{MINUS SIGN}"
ARROWS = {1: "↑", -1: "↓", 0: ""}
READABLE = 12
"""Classes up to which a confusion matrix is a table of numbers; beyond it is a drawing."""
_BLANK = "\N{EN DASH}"


@dataclass
class Key:
    """An entry of a legend: ``number`` of the colour among the series."""

    text: str
    number: int


@dataclass
class Panel:
    """A drawing with its title."""

    title: str
    svg: str


@dataclass
class Section:
    """A heading with panels under it."""

    title: str
    panels: list[Panel]
    keys: list[Key] = field(default_factory=list)
    note: str = ""


@dataclass
class Grid:
    """Pictures with a title for each column and a name for each row; None is a missing label."""

    title: str
    columns: Sequence[Sequence[str]]
    rows: Sequence[tuple[str, Sequence[str | None]]]


def number(value: float | None) -> str:
    """A metric in a few digits."""
    if value is None:
        return _BLANK
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 1) -> str:
    """A change, with its sign."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def plural(count: int, word: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def image_size(run: Read) -> str:
    """In pixels, as far as is known."""
    size = run.about.get("image_size")
    return f"{size[0]} x {size[1]} px" if size else str(run.config.get("image_size") or "")


def images_per_second(run: Read) -> float | None:
    """The median of what was logged."""
    logged = [line["images_per_second"] for line in run.split("train")
              if line.get("images_per_second")]  # fmt: skip
    return statistics.median(logged) if logged else None


def option(changed: Changed) -> tuple[str, str, str]:
    """An option as on the command line, its value, and its default."""
    default = _BLANK if changed.default is UNKNOWN else shown(changed.default)
    return f"--{spell(changed.key)}", shown(changed.value), default


def environment(env: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What env.json says, flat."""
    rest = {key: value for key, value in env.items() if key != "versions"}
    entries = {**rest, **env.get("versions", {})}
    return [(key, shown(value)) for key, value in entries.items() if value is not None]


def picture(run: Read, name: str | None) -> str | None:
    """A picture of the gallery as data to stand in the page."""
    if name is None:
        return None
    file = run.path / "gallery" / "samples" / name.rpartition("/")[2]
    if file.suffix != ".webp" or not file.is_file():
        return None
    return f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}"


def grid(run: Read, title: str, columns: Sequence[Mapping[str, Any]], most: int) -> Grid:
    """Columns of the gallery's pictures, of the first samples."""
    ids = run.gallery["ids"][:most]
    rows = [(id, [picture(run, column["files"][i]) for column in columns])
            for i, id in enumerate(ids)]  # fmt: skip
    return Grid(title, [column["title"] for column in columns], rows)


@dataclass
class Counted:
    """A table of a task's counts, ready to be shown.

    Args:
        task: its id.
        title: what was counted.
        split: of the data.
        columns: their names.
        rows: a name, and for each column the text, its share of the row in percent (None if it is
            no confusion matrix), and what it says when pointed at.
        svg: drawn instead, if it is too large for a table.
        confusion: whether it tells which class was taken for which.
    """

    task: str
    title: str
    split: str
    columns: Sequence[str]
    rows: list[tuple[str, list[tuple[str, float | None, str]]]]
    svg: str = ""
    confusion: bool = False


def counted(table: Table, split: str) -> Counted:
    """Shares in percent for a confusion matrix, else the numbers as they are."""
    task, _, title = table.title.partition("/")
    found = Counted(task, title, split, table.columns, [], confusion=table.confusion)
    if table.confusion and len(table.rows) > READABLE:
        found.svg = figures.confusion(table.values, table.rows)
        return found
    for name, row in zip(table.rows, table.values, strict=True):
        total = sum(v or 0 for v in row)
        cells: list[tuple[str, float | None, str]] = []
        for value in row:
            if table.confusion:
                share = 100 * (value or 0) / total if total else 0.0
                cells.append((f"{share:.0f}" if total else _BLANK, share, f"{value:,.0f}"))
            else:
                cells.append((number(value), None, ""))
        found.rows.append((name, cells))
    return found
