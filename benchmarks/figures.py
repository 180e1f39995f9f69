"""Figures of a report: Δm with a dot for each seed, and what it costs."""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Result, Results
from mtlkit.report.compare import Interval, interval

BETTER, WORSE, UNSURE, INK = "#2a7f8e", "#c05a3c", "#b4b4b4", "#333333"
ROW = 0.34
"""Inches of a bar."""
WIDTH = 8.5
DPI = 130


def draw(results: Results, folder: Path) -> list[str]:
    """Draw what there is to draw; returns the names of the files, and removes older ones."""
    made = {"delta.png": _delta, "cost.png": _cost if results.plan.suite.train else _growth}
    names = []
    for name, figure_of in made.items():
        figure = figure_of(results)
        if figure is None:
            (folder / name).unlink(missing_ok=True)
            continue
        figure.savefig(folder / name, dpi=DPI)
        names.append(name)
    return names


def _figure(rows: int, panels: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 1.3 + ROW * max(rows, 3)), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, colors=INK)
    return figure, list(axes)


def _delta(results: Results) -> Figure | None:
    """Bars of Δm (b), best first; grey where the interval holds 0 or there is none."""
    lines = [line for line in results.lines if line.by_task and not line.is_single]
    if not lines:
        return None
    lines.sort(key=lambda line: statistics.fmean(line.by_task.values()))
    figure, (ax,) = _figure(len(lines))
    for place, line in enumerate(lines):
        values = list(line.by_task.values())
        found = interval(values)
        ax.barh(place, found.mean, height=0.62, color=_colour(found), zorder=2)
        if found.low is not None and found.high is not None:
            ax.plot([found.low, found.high], [place, place], color=INK, linewidth=1.1, zorder=3)
        middle = (len(values) - 1) / 2
        jitter = [place + 0.4 * (i - middle) / len(values) for i in range(len(values))]
        ax.scatter(values, jitter, s=13, color="white", edgecolor=INK, linewidth=0.7, zorder=4)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(lines)), [line.name for line in lines])
    ax.grid(axis="x", color="#e6e6e6", zorder=0)
    ax.set_xlabel(
        "Δm (b) in %, against single-task networks of the same seed; more is better", fontsize=9
    )
    claim = (
        "a smoke test: no claims"
        if results.plan.smoke
        else ("dots: seeds; line: 95 % interval; grey: it holds 0, or there is none")
    )
    ax.set_title(f"{results.plan.suite.title}\n{claim}", fontsize=10, loc="left", color=INK)
    return figure


def _colour(found: Interval) -> str:
    if not found.clear:
        return UNSURE
    return BETTER if found.mean > 0 else WORSE


def _cost(results: Results) -> Figure | None:
    """Δm (b) over the time of a step, for all lines with single tasks."""
    lines = [line for line in results.lines if line.by_task and not line.is_single]
    if len(lines) < 2:
        return None
    figure, (ax,) = _figure(14)
    points = []
    for line in lines:
        found = interval(list(line.by_task.values()))
        x = 1000 * statistics.median(_seconds(run) for run in line.ok)
        colour = _colour(found)
        if found.low is not None and found.high is not None:
            ax.plot([x, x], [found.low, found.high], color=colour, linewidth=1, zorder=2)
        ax.scatter([x], [found.mean], s=34, color=colour, edgecolor=INK, linewidth=0.6, zorder=3)
        points.append((x, found.mean, line.name))
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.grid(color="#eeeeee", zorder=0)
    ax.margins(x=0.32, y=0.1)
    _label(ax, points)
    ax.set_xlabel("time of an optimiser step, ms (data apart)", fontsize=9)
    ax.set_ylabel("Δm (b) in %", fontsize=9)
    ax.set_title(f"{results.plan.suite.title}: gain and cost", fontsize=10, loc="left", color=INK)
    return figure


def _label(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Names beside the points, moved apart from bottom to top, in two columns by side."""
    low, high = ax.get_ylim()
    least = (high - low) / 32
    middle = statistics.median(x for x, _, _ in points)
    for right in (False, True):
        side = sorted((p for p in points if (p[0] >= middle) == right), key=lambda p: p[1])
        at = -math.inf
        for x, y, name in side:
            at = max(y, at + least)
            ax.annotate(
                name,
                (x, y),
                xytext=(
                    x + (1 if right else -1) * 0.015 * (ax.get_xlim()[1] - ax.get_xlim()[0]),
                    at,
                ),
                fontsize=7.5,
                color=INK,
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
                ha="left" if right else "right",
                arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6},
            )


def _growth(results: Results) -> Figure | None:
    """Time and memory of a step, row by row, in the suite's order."""
    lines = [line for line in results.lines if line.ok]
    if not lines:
        return None
    panels: list[tuple[str, Callable[[Result], float]]] = [
        ("time of a step, ms", lambda run: 1000 * _seconds(run)),
        ("memory of a step, MiB", lambda run: (run.cost["step_peak_bytes"] or math.nan) / 2**20),
        ("parameters, millions", lambda run: run.cost["parameters"] / 1e6),
    ]
    figure, axes = _figure(len(lines), len(panels))
    for ax, (title, value) in zip(axes, panels, strict=True):
        for place, line in enumerate(reversed(lines)):
            values = [value(run) for run in line.ok]
            ax.barh(place, statistics.median(values), height=0.62, color=BETTER, zorder=2)
            ax.scatter(values, [place] * len(values), s=11, color="white", edgecolor=INK,
                       linewidth=0.6, zorder=3)  # fmt: skip
        ax.set_title(title, fontsize=9, loc="left", color=INK)
        ax.grid(axis="x", color="#e6e6e6", zorder=0)
        ax.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(lines)), [line.name for line in reversed(lines)])
    figure.suptitle(results.plan.suite.title, fontsize=10, x=0.01, ha="left", color=INK)
    return figure


def _seconds(run: Result) -> float:
    return statistics.median(run.cost["step_seconds"])
