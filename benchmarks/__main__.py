"""Suites of runs that answer one question each.

    python -m benchmarks list
    python -m benchmarks run SUITE --output DIR [--jobs N] [--smoke] [--seeds N] [options]
    python -m benchmarks report DIR

run     does what DIR lacks of a suite (a name of list, or the path of a YAML file), then reports.
        Interrupt it and start it again at will. A failed run is tried again by the next start.
report  writes DIR/report.md, DIR/results.csv and pictures from what is there; needs no data.

--output DIR  folder for everything
--jobs N      runs at a time, which share the cores (OMP_NUM_THREADS, if set, is kept); 1
--smoke       tiny budget: shows that every row runs, and claims nothing
--seeds N     seeds 0 to N - 1; by default the suite's number

All other options are those of mtlkit train, for all rows: --data oxford-pets --data.root DIR.
--backbone.pretrained FILE goes to the rows that ask for pretrained weights (true: download them).

Exit codes: 0 ok, 2 usage or configuration, 4 some runs failed, 130 Ctrl-C.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import plan, report, runner, suite
from mtlkit.commands.flags import split, whole_number
from mtlkit.errors import ConfigError, MtlkitError, did_you_mean
from mtlkit.source import BARE

OWN = ("output", "jobs", "smoke", "seeds")
VERBS = ("run", "report", "list")


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    try:
        return _command(*argv)
    except MtlkitError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def _command(verb: str, *words: str) -> int:
    if verb == "list":
        for name in suite.names():
            print(f"{name:12}{suite.read(name).question}")
        return 0
    if verb not in VERBS:
        raise ConfigError(f"unknown command '{verb}'{did_you_mean(verb, VERBS)}")
    if not words or words[0].startswith("-"):
        raise ConfigError(f"{verb} needs {'a suite' if verb == 'run' else 'a folder'} first")
    if verb == "run":
        return _run(words[0], words[1:])
    if len(words) > 1:
        raise ConfigError(f"unrecognized arguments: {' '.join(words[1:])}")
    report.write(Path(words[0]))
    return 0


def _run(name: str, words: Sequence[str]) -> int:
    _, options, own = split(words, OWN)
    if own.get("output", BARE) is BARE:
        raise ConfigError("run needs --output DIR")
    if own.get("smoke", BARE) is not BARE:
        raise ConfigError(f"--smoke takes no value, but got '{own['smoke']}'")
    numbers = {key: whole_number(key, own[key]) for key in ("jobs", "seeds") if key in own}
    made = plan.make(
        suite.read(name),
        options,
        smoke="smoke" in own,
        seeds=numbers.get("seeds"),
        command=shlex.join(["python", "-m", "benchmarks", "run", name, *words]),
    )
    for row in made.rows:
        for note in row.notes:
            print(f"note: {row.name}: {note}")
    output = Path(str(own["output"]))
    code = runner.run(made, output, numbers.get("jobs", 1))
    report.write(output)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
