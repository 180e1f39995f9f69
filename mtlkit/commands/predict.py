"""``mtlkit predict RUN|FILE.onnx IMAGE...``."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mtlkit.commands.parser import Parser, add_switch, count
from mtlkit.settings import Precision


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("predict")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run or of a model, or "
                        "an ONNX file of mtlkit export")  # fmt: skip
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE",
                        help="picture files, and folders of them")  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--batch-size", type=count, default=16, metavar="N", help="default 16")
    parser.add_argument("--precision", choices=get_args(Precision), default="no",
                        help="arithmetic of the forward pass (default no)")  # fmt: skip
    add_switch(parser, "channels-last", True, "keep images in the memory order that convolutions "
                "like best (default true)")  # fmt: skip
    add_switch(parser, "compile", False, "compile the network with torch.compile (default false)")
    args = parser.parse_args(argv)
    from mtlkit import api

    failed = api.predict_files(
        args.run,
        args.images,
        args.output,
        args.batch_size,
        precision=args.precision,
        channels_last=args.channels_last,
        compile=args.compile,
    )
    return 1 if failed else 0
