"""Markdown: tables, code, and text that stays text."""

import re
from collections.abc import Iterable, Sequence

from mtlkit.data import one_line

_MARKUP = re.compile(r"[^\w ,'/+()=%.-]|(?<![^\W_])_|_(?![^\W_])|\.(?=[^\W\d])")
"""What Markdown or HTML may take for markup, or for the address of a link."""


def escape(text: str) -> str:
    """A text that Markdown and HTML show as it is, on one line."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", one_line(text))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are escaped already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fenced(text: str, language: str) -> str:
    """A block of code that no backticks inside can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
