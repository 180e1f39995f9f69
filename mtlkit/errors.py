"""Errors that a user can mend: printed on one line, without a traceback."""

import difflib
from collections.abc import Iterable


class MtlkitError(Exception):
    """Something the user can mend. The message says what was given and what to do."""

    exit_code = 2


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
