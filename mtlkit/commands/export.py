"""``mtlkit export RUN --output FILE``."""

from collections.abc import Sequence
from pathlib import Path

from mtlkit.commands.parser import Parser, count


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("export")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or of a model")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="where to write")
    parser.add_argument("--format", choices=("onnx", "pt2"), help="onnx runs anywhere, with mtlkit "
                        "predict too; pt2 is for torch.export.load alone, as loading one can run "
                        "what is in it (default: what FILE ends in)")  # fmt: skip
    parser.add_argument("--tasks", metavar="IDS", help="what to predict, with commas; what only "
                        "other tasks need is left out (default: all)")  # fmt: skip
    parser.add_argument("--image-size", metavar="SIZE", help="pixels of a side, or HEIGHTxWIDTH "
                        "(default: the run's own)")  # fmt: skip
    parser.add_argument("--dynamic", action="store_true", help="take pictures of any height and "
                        "width that the network can, not of one size")  # fmt: skip
    parser.add_argument("--batch-size", type=count, metavar="N", help="take N pictures at a time, "
                        "no more and no less (default: any number)")  # fmt: skip
    args = parser.parse_args(argv)
    from mtlkit.build import parse_image_size
    from mtlkit.export import export_model

    report = export_model(
        args.run,
        args.output,
        format=args.format,
        tasks=args.tasks.split(",") if args.tasks else None,
        image_size=parse_image_size(args.image_size) if args.image_size else None,
        dynamic=args.dynamic,
        batch_size=args.batch_size,
    )
    sizes = ", ".join(f"{height} x {width}" for height, width in report.sizes)
    print(f"{report.file}: {report.bytes / 1e6:.1f} MB, {report.parameters:,} of the network's "
          f"{report.of_parameters:,} parameters")  # fmt: skip
    print(f"differs from PyTorch, on {report.pictures} random pictures of {sizes} px, at most by")
    width = max(map(len, report.differences))
    for id, d in report.differences.items():
        print(f"  {id.ljust(width)}  {d.most:.1e}, {d.relative:.1e} of its largest value; "
              f"median {d.median:.1e}")  # fmt: skip
    return 0
