"""``mtlkit show KIND NAME``."""

from collections.abc import Sequence

from mtlkit import help, registry
from mtlkit.commands.parser import Parser, kind_of
from mtlkit.registry import KINDS


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("show")
    parser.add_argument("kind", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("name", metavar="NAME", help="as mtlkit list has it")
    args = parser.parse_args(argv)
    print(help.component(registry.load().find(kind_of(args.kind), args.name)))
    return 0
