"""What a step costs as tasks, image sides and processes grow, and what goes over the wire.

Tasks: one ResNet-18 for 1 to 12 tasks with light heads, against the one with a single task.
Processes: two on this machine, over loopback, whose counters of bytes are read. A plain step of
DDP is the baseline; a balancer that looks at the gradients of T tasks should move (T + 1) / 2 times
as much.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mtlkit import api, config, launch, measure
from mtlkit.model import TaskBatch
from mtlkit.session import Run
from mtlkit.train import windows

LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")


def assembled(tasks: int, size: int, batch: int, *words: str) -> tuple[Run, list[TaskBatch]]:
    """A run that steps on one batch."""
    ids = ",".join(f"t{i}=cls" for i in range(tasks))
    options = ["--tasks", ids, "--data", "shapes", "--data.size", str(size), "--workers", "0"]
    run = api.assemble(config.parse([*options, "--batch-size", str(batch), *words]))
    run.model.train()
    return run, next(windows(run.loader("train"), run.model, run.settings))


def step(tasks: int, size: int, batch: int, *words: str) -> measure.Work:
    """One optimiser step, again and again."""
    run, window = assembled(tasks, size, batch, *words)
    return partial(run.engine, window, step=0, epoch=0)


def by_tasks(numbers: Sequence[int], size: int, batch: int, rounds: int) -> dict[str, Any]:
    """Cost of a step for each number of tasks."""
    makers = {str(n): partial(step, n, size, batch) for n in numbers}
    device = assembled(1, size, batch)[0].accelerator.device
    costs = measure.in_turns(makers, str(numbers[0]), rounds=rounds, device=device)
    print("tasks")
    print(measure.table(costs, str(numbers[0])))
    return measure.numbers(costs, str(numbers[0]))


def by_size(sizes: Sequence[int], batch: int, rounds: int) -> dict[str, Any]:
    """Cost of a step for three tasks and each side of the images."""
    makers = {f"{size} px": partial(step, 3, size, batch) for size in sizes}
    device = assembled(1, sizes[0], batch)[0].accelerator.device
    costs = measure.in_turns(makers, f"{sizes[0]} px", rounds=rounds, device=device)
    print("image sides")
    print(measure.table(costs, f"{sizes[0]} px"))
    return measure.numbers(costs, f"{sizes[0]} px")


def one_of_several(words: Sequence[str]) -> None:
    """Run steps as one of the processes that :func:`by_process` starts; the first one reports."""
    balancer, tasks, size, batch, steps = words[0], *map(int, words[1:])
    run, window = assembled(tasks, size, batch, "--balancer", balancer)
    run.engine(window, step=0, epoch=0)
    run.accelerator.wait_for_everyone()
    sent, times = _sent(), []
    for number in range(steps):
        start = time.perf_counter()
        run.engine(window, step=number, epoch=0)
        times.append(time.perf_counter() - start)
    run.accelerator.wait_for_everyone()
    if run.main:
        shared = sum(p.numel() for p in run.engine.sharing.shared)
        found = {"seconds": times, "bytes": (_sent() - sent) / steps, "shared parameters": shared}
        print("FOUND", json.dumps(found), flush=True)
    run.accelerator.end_training()


def _sent() -> int:
    return int(LOOPBACK.read_text()) if LOOPBACK.exists() else 0


def by_process(balancers: Sequence[str], size: int, batch: int, steps: int) -> dict[str, Any]:
    """Seconds and bytes of a step on one process and on two with half the batch each."""
    found: dict[str, Any] = {}
    for balancer in balancers:
        for processes in (1, 2):
            words = [balancer, "3", str(size), str(batch // processes), str(steps)]
            found[f"{balancer}, {processes}"] = _launched(words, processes)
    plain = found[f"{balancers[0]}, 2"]["bytes"]
    rows = [["balancer, processes", "step", "MiB on the wire", f"x {balancers[0]}"]]
    for name, one in found.items():
        one["milliseconds"] = 1000 * statistics.median(one["seconds"])
        wire = ["-", "-"]
        if name.endswith("2"):
            wire = [f"{one['bytes'] / measure.MIB:.1f}", f"{one['bytes'] / plain:.2f}"]
        rows.append([name, f"{one['milliseconds']:.1f} ms", *wire])
    print("processes")
    print(measure.columns(rows))
    return found


def _launched(words: Sequence[str], processes: int) -> dict[str, Any]:
    """Start this file on some processes, as ``mtlkit train --num-processes`` does."""
    shared = launch.environment(processes) if processes > 1 else dict(os.environ)
    command = [sys.executable, __file__, "--one-of-several", *words]
    children = []
    for rank in range(processes):
        mine = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        children.append(
            subprocess.Popen(command, env={**shared, **mine}, stdout=subprocess.PIPE, text=True)
        )
    printed = [child.communicate()[0] for child in children]
    line = next(x for x in "".join(printed).splitlines() if x.startswith("FOUND "))
    found: dict[str, Any] = json.loads(line.removeprefix("FOUND "))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--one-of-several"]:
        return one_of_several(words[1:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 2, 3, 6, 12])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--balancers", nargs="+", default=["equal", "upgrad", "graddrop"])
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args(words)
    found = {
        "tasks": by_tasks(args.tasks, args.size, args.batch, args.rounds),
        "sizes": by_size(args.sizes, args.batch, args.rounds),
        "processes": by_process(args.balancers, args.size, args.batch, args.rounds),
    }
    if args.output:
        device = assembled(1, args.size, args.batch)[0].accelerator.device
        measure.write(args.output, " ".join(["python", *sys.argv]), device, found)
    return None


if __name__ == "__main__":
    main()
