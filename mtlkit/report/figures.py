"""Figures: matplotlib's drawings as SVG that stands in a page and takes its colours from there."""

import io
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from mtlkit import panels
from mtlkit.panels import Line, Points
from mtlkit.report.compare import Interval

# Stand-ins: written into the SVG by matplotlib, and there replaced by the page's own colours.
INK, MUTED, RULE, GOOD, BAD, PAPER = (f"#0a0b0{i}" for i in range(6))
SERIES = [f"#0a0c0{i}" for i in range(7)]
_NAMES = {INK: "ink", MUTED: "muted", RULE: "rule", GOOD: "good", BAD: "bad", PAPER: "paper"}
_NAMES |= {colour: f"series-{i}" for i, colour in enumerate(SERIES)}
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
"""Lines beyond the colours are told apart by these."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 8, "font.family": "sans-serif",
    "text.color": INK, "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.edgecolor": RULE, "axes.facecolor": "none", "figure.facecolor": "none",
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.linewidth": 0.6, "grid.linewidth": 0.6,
    "grid.color": RULE, "lines.linewidth": 1.4, "lines.markersize": 4,
}  # fmt: skip
_COLOUR = re.compile("|".join(_NAMES))

CONFLICT = LinearSegmentedColormap.from_list("conflict", ["#d55e00", "#d8d8d8", "#0072b2"])
"""From -1, the gradients conflict, to 1, they agree: apart for colour-blind readers too."""
SHARE = LinearSegmentedColormap.from_list("share", [(0, 0.45, 0.7, 0), (0, 0.45, 0.7, 1)])
"""From none to all: what is behind it shows through."""


class Series(NamedTuple):
    """One line of a panel: its points, and its place among the colours."""

    points: Points
    number: int
    faint: bool = False


def curves(series: Iterable[Series], *, best: int | None = None, log: bool = False) -> str:
    """Lines over optimiser steps.

    Args:
        series: at least one.
        best: the step of the best model, to be marked.
        log: whether equal ratios are equally far apart.
    """
    with matplotlib.rc_context(_STYLE):
        figure, ax = _panel()
        for points, number, faint in series:
            dash = DASHES[number // len(SERIES) % len(DASHES)]
            style = {"color": SERIES[number % len(SERIES)], "linestyle": dash}
            panels.draw_line(ax, points, **style, alpha=0.45 if faint else 1)
        if best is not None:
            ax.axvline(best, color=MUTED, linewidth=0.8, linestyle=DASHES[2], zorder=0)
        if log:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.tick_params(which="minor", size=0)
        else:
            ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.grid(axis="y")
        return _svg(figure)


def conflict_map(seen: Sequence[Line], ids: Sequence[str]) -> str:
    """The cosine of each pair of tasks' gradients over the steps.

    Args:
        seen: of :func:`mtlkit.panels.looks`, at least one.
        ids: of the tasks, at least two.
    """
    with matplotlib.rc_context(_STYLE | {"font.size": 7}):
        rows = len(panels.pairs(ids))
        height = 0.5 + 0.24 * rows
        figure = Figure(figsize=(4.6, height))
        ax = figure.add_axes((0.2, 0.4 / height, 0.78, 0.24 * rows / height))
        panels.draw_cosines(ax, seen, ids, CONFLICT)
        ax.spines[:].set_visible(False)
        _steps(ax)
        return _svg(figure)


def confusion(values: Sequence[Sequence[float | None]], names: Sequence[str]) -> str:
    """A confusion matrix of many classes: shares of each row."""
    with matplotlib.rc_context(_STYLE | {"font.size": 6}):
        size = 1.2 + 0.13 * len(names)
        figure = Figure(figsize=(size, size))
        edge = 1.1 / size
        ax = figure.add_axes((edge, 0.02, 0.98 - edge, 0.98 - edge))
        totals = [sum(v or 0 for v in row) or 1 for row in values]
        shares = [[(v or 0) / t for v in row] for row, t in zip(values, totals, strict=True)]
        ax.imshow(shares, cmap=SHARE, vmin=0, vmax=1, interpolation="nearest")
        short = [literal(name if len(name) < 20 else f"{name[:19]}…") for name in names]
        ax.set_yticks(range(len(names)), short)
        ax.set_xticks(range(len(names)), short, rotation=90)
        ax.xaxis.tick_top()
        return _svg(figure)


class Bar(NamedTuple):
    """A row of :func:`bars`.

    Args:
        label: of the row.
        text: the number in words.
        dots: one value per seed.
        interval: of their mean.
        better: 1 if right of zero is good, -1 if left is, 0 if it is neither.
    """

    label: str
    text: str
    dots: Sequence[float]
    interval: Interval
    better: int


def bars(rows: Sequence[Bar]) -> str:
    """Means with their intervals and a dot per seed; grey where zero is in the interval."""
    with matplotlib.rc_context(_STYLE):
        height = 0.34 + 0.44 * len(rows)
        figure = Figure(figsize=(3.7, height))
        ax = figure.add_axes((0.03, 0.3 / height, 0.94, 1 - 0.32 / height))
        for i, row in enumerate(rows):
            _bar(ax, -i, row)
        ax.set_ylim(-len(rows) + 0.6, 0.8)
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure)


def _bar(ax: Axes, y: float, row: Bar) -> None:
    middle, low, high = row.interval
    sign = row.better * middle
    colour = MUTED
    if row.better == 0:
        colour = SERIES[0]
    elif row.interval.clear:
        colour = GOOD if sign > 0 else BAD
    ax.barh(y, middle, height=0.34, color=colour, alpha=0.55, linewidth=0)
    if low is not None and high is not None:
        ax.plot((low, high), (y, y), color=INK, linewidth=1.1)
    ax.plot(row.dots, [y] * len(row.dots), linestyle="", marker="o", markersize=3.6,
            markerfacecolor=PAPER, markeredgecolor=INK, markeredgewidth=0.8)  # fmt: skip
    transform = ax.get_yaxis_transform()
    name = row.label if len(row.label) < 34 else f"{row.label[:33]}…"
    ax.text(0, y + 0.24, literal(name), transform=transform, va="bottom", fontsize=8)
    ax.text(1, y + 0.24, row.text, transform=transform, va="bottom", ha="right", color=MUTED)


def literal(text: str) -> str:
    """A text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.7, 1.9))
    ax = figure.add_axes((0.1, 0.17, 0.88, 0.79))
    ax.spines[["top", "right", "left"]].set_visible(False)
    _steps(ax)
    return figure, ax


def _steps(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("optimiser step", labelpad=1)


def _svg(figure: Figure) -> str:
    """The figure as an element of a page: no header, no names of outside, no size of its own."""
    for artist in figure.findobj():
        artist.set_clip_on(False)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mtlkit"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"|(?<=<g) id="[^"]*"| id="image\w*"', "", svg)
    svg = re.sub(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg, count=1)
    svg = re.sub(r" font-family: [^;]*;|\n\s*(?=\n)", "", svg.replace("xlink:href", "href"))
    unique = f"{zlib.crc32(svg.encode()):x}"  # a page has many figures, with marks of one name
    svg = re.sub(r'(id="|href="#)(m\w+)', rf"\g<1>{unique}-\2", svg)
    return _COLOUR.sub(lambda match: f"var(--{_NAMES[match[0]]})", svg)
