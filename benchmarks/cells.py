"""Cells: numbers and names as a report's tables have them."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtlkit.report.compare import interval

MIB = 2**20


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first row is the heading."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def spread(values: Iterable[float], key: str = "") -> str:
    """Mean and half of the interval; ``-`` without a value."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    form = ".3f" if key and abs(statistics.fmean(known)) < 10 else ".1f"
    return _with_half(known, form if key else f"+{form}")


def signed(values: Sequence[float]) -> str:
    """Mean difference and half of the interval, with a sign."""
    return _with_half(values, "+.3f") if values else "-"


def _with_half(values: Sequence[float], form: str) -> str:
    found = interval(values)
    half = "" if found.low is None else f" ± {found.mean - found.low:{form.lstrip('+')}}"
    return f"{found.mean + 0.0:{form}}{half}"


def p_value(values: Mapping[str, float], name: str) -> str:
    """The p of a line, if it was tested."""
    return number(values.get(name, math.nan), ".3f")


def number(value: float, form: str) -> str:
    """A number, or ``-`` where there is none."""
    return "-" if math.isnan(value) else f"{value:{form}}"


def mib(costs: Sequence[Mapping[str, Any]], key: str) -> str:
    """The median of some bytes, in MiB."""
    known = [cost[key] for cost in costs if cost.get(key) is not None]
    return f"{statistics.median(known) / MIB:.0f}" if known else "-"


def names(words: Sequence[str]) -> str:
    """In quotes, with commas."""
    return ", ".join(f"'{word}'" for word in words)
