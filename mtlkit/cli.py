"""The command line: one line for every mistake, and an exit code for every outcome.

0 ok, 1 the run failed, 2 usage or configuration, 3 a plugin failed in strict mode, 130 Ctrl-C.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mtlkit import __version__, help
from mtlkit.errors import ConfigError, MtlkitError, ProcessError, did_you_mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors a user can mend are printed."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(help.overview())
        return 0
    if words[0] == "--version":
        print(f"mtlkit {__version__}")
        return 0
    verb, *rest = words
    known = verb in help.VERBS
    try:
        if not known:
            raise ConfigError(f"unknown command '{verb}'{did_you_mean(verb, help.VERBS)}")
        code: int = import_module(f"mtlkit.commands.{verb}").run(rest)
        return code
    except MtlkitError as error:
        _print_error(f"mtlkit {verb}" if known else "mtlkit", error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _print_error(command: str, error: MtlkitError) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0" or isinstance(error, ProcessError):
        print(f"{command}: error: {error}", file=sys.stderr)
