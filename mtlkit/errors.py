"""Errors that a user can mend: printed on one line, without a traceback."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

LONGEST = 4000
"""Characters of a message: it may quote a file."""

_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 10
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 100


class MtlkitError(Exception):
    """Something the user can mend. The message says what was given and what to do."""

    exit_code = 2

    def __str__(self) -> str:
        text = super().__str__()
        return printable(text[:LONGEST]) + "..." * (len(text) > LONGEST)


class ConfigError(MtlkitError):
    """An option, a name or a combination of them is wrong."""


class DataError(MtlkitError):
    """A file or folder of the data is missing, unreadable or contradicts another."""


class CheckpointError(MtlkitError):
    """A saved run or model cannot be read, or does not fit what was asked of it."""


class PluginError(MtlkitError):
    """A plugin is broken. Exit code 3: only strict mode lets it end the program."""

    exit_code = 3


class RunError(MtlkitError):
    """A run began and could not go on."""

    exit_code = 1


class ProcessError(RunError):
    """It could not go on for a reason that this process alone may know of."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest of ``known``, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def printable(text: str) -> str:
    """A text that may quote a stranger's, without what would steer a terminal; lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def shown(value: Any) -> str:
    """A value as Python writes it, cut short where it is long or deep."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to write a number of thousands of digits
        return f"a huge {type(value).__name__}"
