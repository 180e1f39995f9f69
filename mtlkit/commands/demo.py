"""``mtlkit demo RUN``: Ctrl-C ends it, with exit code 0."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtlkit.commands.parser import Parser


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("demo")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or of a model")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                        help="default 127.0.0.1, for this machine alone")  # fmt: skip
    parser.add_argument("--port", type=_port, default=7860, metavar="N",
                        help="default 7860; 0 takes any free one")  # fmt: skip
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    args = parser.parse_args(argv)
    from mtlkit import demo

    demo.serve(args.run, args.host, args.port, open_browser=args.open)
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expects a number from 0 to 65535, but got '{text}'")
    return int(text)
