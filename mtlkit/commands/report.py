"""``mtlkit report RUN...``."""

from collections.abc import Sequence
from pathlib import Path

from mtlkit.commands.parser import Parser

TOGETHER = Path("report")
"""Where the comparison of several runs goes unless its user says otherwise."""
_RUNS = "folder of a run; several are compared, and those that differ only in seed are one"
_OUTPUT = "where the files go; by default to the run itself, or for several to report/"


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("report")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=_RUNS)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=_OUTPUT)
    args = parser.parse_args(argv)
    from mtlkit import report

    several = len({folder.resolve() for folder in args.runs}) > 1
    print(report.write(*args.runs, output=args.output or (TOGETHER if several else None)))
    return 0
