"""How long a user waits: for the quick commands, and for the first optimiser step of a run.

The first step is told by a plugin, installed for the occasion as any other is. Python starting and
doing nothing is the baseline; commands take turns with it.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mtlkit import measure

COMMANDS = {
    "--help": ["--help"],
    "list": ["list"],
    "show balancer cagrad": ["show", "balancer", "cagrad"],
    "train --help": ["train", "--help"],
}
HEAVY = (
    "torch", "torchvision", "torchmetrics", "timm", "segmentation_models_pytorch", "kornia",
    "matplotlib", "scipy", "transformers",
)  # fmt: skip
WATCH = f"""
import os, sys, time
import mtlkit

@mtlkit.hookimpl
def mtlkit_step_ended(run):
    if run.step == 1:
        loaded = [name for name in {HEAVY!r} if name in sys.modules]
        with open(os.environ["FIRST_STEP"], "w") as file:
            file.write(" ".join([str(time.time()), *loaded]))
"""


def command(words: Sequence[str]) -> measure.Maker:
    """What runs a command and waits for it."""
    return lambda: lambda: subprocess.run(words, stdout=subprocess.DEVNULL, check=True)


def first_step(home: Path, words: Sequence[str]) -> tuple[float, list[str]]:
    """Seconds from the start of a run to the end of its first step, and what it had imported."""
    info = home / "watch-1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Name: watch\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mtlkit]\nwatch = watch\n")
    (home / "watch.py").write_text(WATCH)
    told = home / "told"
    path = os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])
    start = time.time()
    with TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "mtlkit.train", *words, "--max-steps", "1", "--epochs", "1",
             "--output", f"{folder}/run"],
            env={**os.environ, "PYTHONPATH": path, "FIRST_STEP": str(told)},
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    when, *loaded = told.read_text().split()
    return float(when) - start, loaded


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("options", nargs="*", help="of mtlkit train, after --")
    args = parser.parse_args(argv)
    cpu = torch.device("cpu")
    makers = {"python -c pass": command([sys.executable, "-c", "pass"])}
    for name, words in COMMANDS.items():
        makers[f"mtlkit {name}"] = command([sys.executable, "-m", "mtlkit", *words])
    costs = measure.in_turns(makers, "python -c pass", rounds=args.rounds, device=cpu)
    with TemporaryDirectory() as home:
        firsts = [first_step(Path(home), args.options) for _ in range(min(args.rounds, 3))]
    seconds, loaded = sorted(firsts)[len(firsts) // 2]
    print(measure.table(costs, "python -c pass"))
    print(f"first step after {seconds:.1f} s; imported by then: {', '.join(loaded)}")
    if args.output:
        first = {"seconds": [s for s, _ in firsts], "imported": loaded, "options": args.options}
        found = {"commands": measure.numbers(costs, "python -c pass"), "first step": first}
        measure.write(args.output, " ".join(["python", *sys.argv]), cpu, found)


if __name__ == "__main__":
    main()
