"""How the small commands read their words."""

import argparse
from typing import NoReturn

from mtlkit import help
from mtlkit.errors import ConfigError, did_you_mean
from mtlkit.registry import KINDS


class Parser(argparse.ArgumentParser):
    """argparse for the small commands, with errors of one line."""

    def __init__(self, verb: str) -> None:
        super().__init__(prog=f"mtlkit {verb}", description=_sentence(verb), allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the words."""
        raise ConfigError(message)


def _sentence(verb: str) -> str:
    text = help.VERBS[verb]
    return f"{text[0].upper()}{text[1:]}."


def add_switch(parser: Parser, name: str, default: bool, help: str) -> None:
    """An option of a word or none, as ``mtlkit train`` has them."""
    parser.add_argument(f"--{name}", type=_truth, nargs="?", const=True, default=default,
                        metavar="true|false", help=help)  # fmt: skip


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expects true or false, but got '{text}'")
    return text.lower() == "true"


def kind_of(word: str) -> str:
    """A kind, in the singular or the plural."""
    kind = word.removesuffix("s")
    if kind not in KINDS:
        raise ConfigError(f"unknown kind '{word}'{did_you_mean(word, KINDS)}"
                          f"\n  available: {', '.join(KINDS)}")  # fmt: skip
    return kind


def count(text: str) -> int:
    """A number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expects a whole number above 0, but got '{text}'")
    return int(text)
