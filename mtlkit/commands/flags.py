"""What commands with the options of ``mtlkit train`` take for themselves."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mtlkit import source
from mtlkit.errors import ConfigError
from mtlkit.source import BARE

TRAIN_FLAGS = ("dry_run", "no_plugins", "num_processes", "print_config")


def split(argv: Sequence[str], flags: Sequence[str]) -> tuple[bool, list[str], dict[str, Any]]:
    """Whether help is asked for, the words of a configuration, and the values of ``flags``."""
    asked_for_help = any(word in ("-h", "--help") for word in argv)
    pairs = source.tokens([word for word in argv if word not in ("-h", "--help")])
    own = {key: value for key, value in pairs if key in flags}
    options = [word for pair in pairs if pair[0] not in own for word in _words(*pair)]
    return asked_for_help, options, own


def check_flags(own: dict[str, Any]) -> None:
    """Refuse a value where none belongs, and what is no number of processes."""
    for key, value in own.items():
        if key == "num_processes":
            whole_number(key, value)
        elif value is not BARE:
            raise ConfigError(f"--{source.spell(key)} takes no value, but got '{value}'")


def whole_number(key: str, value: Any) -> int:
    """A number above 0."""
    if not isinstance(value, str) or not value.isdecimal() or int(value) < 1:
        got = "no value was given" if value is BARE else f"got '{value}'"
        raise ConfigError(f"--{source.spell(key)} expects a whole number above 0, but {got}")
    return int(value)


def _words(key: str, value: Any) -> list[str]:
    return [f"--{key}"] if value is BARE else [f"--{key}={value}"]


@contextmanager
def own_plugins_only(wanted: bool) -> Iterator[None]:
    """Leave out third parties here and in the processes that are started."""
    before = os.environ.get("MTLKIT_DISABLE_PLUGINS")
    if wanted:
        os.environ["MTLKIT_DISABLE_PLUGINS"] = f"{before},*" if before else "*"
    try:
        yield
    finally:
        if before is not None:
            os.environ["MTLKIT_DISABLE_PLUGINS"] = before
        elif wanted:
            del os.environ["MTLKIT_DISABLE_PLUGINS"]
