"""``mtlkit plugin new NAME --kind KIND``."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from mtlkit import registry, scaffold
from mtlkit.commands.parser import Parser, kind_of
from mtlkit.registry import KINDS


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("plugin")
    parser.add_argument("new", choices=("new",), help="the only thing to do so far")
    parser.add_argument("name", metavar="NAME", help="of the package and its component")
    parser.add_argument("--kind", required=True, metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR",
                        help="where to make the folder NAME; default: here")  # fmt: skip
    args = parser.parse_args(argv)
    made = scaffold.create(registry.load(), kind_of(args.kind), args.name, args.output)
    home = shlex.quote(str(args.output / args.name))
    print("\n".join([*map(str, made), f"next: pip install -e {home} && pytest {home}"]))
    return 0
