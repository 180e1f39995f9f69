"""``mtlkit share RUN``."""

from collections.abc import Sequence
from pathlib import Path

from mtlkit.commands.parser import Parser
from mtlkit.errors import ConfigError


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("share")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or one that this "
                        "command wrote: then its README.md is taken as it is")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write model and card there")
    parser.add_argument("--push", metavar="USER/NAME", help="send them to the Hugging Face Hub")
    parser.add_argument("--private", action="store_true", help="if it is new there, show it to "
                        "nobody else")  # fmt: skip
    args = parser.parse_args(argv)
    output: Path | None = args.output
    if not output and not args.push:
        raise ConfigError("say where to: --output FOLDER or --push USER/NAME")
    if args.private and not args.push:
        raise ConfigError("--private is for --push USER/NAME")
    if output and (output.is_file() or (output.is_dir() and any(output.iterdir()))):
        raise ConfigError(f"the output folder {output} is in use; choose another --output")
    from mtlkit.build import load_model

    model = load_model(args.run)
    if output:
        model.save_pretrained(output, run=args.run)
        print(f"wrote {output}")
    if args.push:
        print(model.push_to_hub(args.push, run=args.run, private=args.private or None))
    return 0
