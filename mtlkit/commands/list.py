"""``mtlkit list [KIND]``."""

from collections.abc import Sequence

from mtlkit import help, registry
from mtlkit.commands.parser import Parser, kind_of
from mtlkit.registry import KINDS


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("list")
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    kind = parser.parse_args(argv).kind
    print(help.listing(registry.load(), KINDS if kind is None else [kind_of(kind)]))
    return 0
