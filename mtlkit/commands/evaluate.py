"""``mtlkit evaluate RUN``."""

from collections.abc import Sequence
from pathlib import Path

from mtlkit.commands.parser import Parser, count
from mtlkit.errors import ConfigError


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("evaluate")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--batch-size", type=count, metavar="N", help="default: the run's own")
    parser.add_argument("--workers", type=int, metavar="N", help="default: the run's own")
    parser.add_argument("--full-size", action="store_true", help="compare masks, maps and boxes in "
                        "the pixels of each picture, not at the network's size")  # fmt: skip
    args = parser.parse_args(argv)
    from mtlkit import api

    values = api.evaluate_run(
        args.run, args.split, args.batch_size, args.workers, full_size=args.full_size
    )
    if not values:
        raise ConfigError(f"the data of {args.run} has no samples in its {args.split} split")
    width = max(map(len, values))
    print("\n".join(f"{key.ljust(width)}  {value:.4f}" for key, value in values.items()))
    return 0
