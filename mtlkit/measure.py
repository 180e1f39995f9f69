"""Measuring in turns: seconds as ratios to a baseline measured at the same time, and memory."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mtlkit.run import environment

MIB = 2**20

Work = Callable[[], object]
Maker = Callable[[], Work]


@dataclass
class Cost:
    """What some work costs.

    Args:
        seconds: of it, by round.
        baseline_seconds: of the baseline, measured just before it.
        peak_bytes: of its tensors, above what is held before it; None where it is unknown.
    """

    seconds: list[float] = field(default_factory=list)
    baseline_seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None


def in_turns(
    makers: Mapping[str, Maker], baseline: str, *, rounds: int, device: torch.device
) -> dict[str, Cost]:
    """The cost of each way to do something, round after round, each next to the baseline.

    Args:
        makers: by name, what makes a way ready; asked anew in every round, so that no way's memory
            stays while another is measured. The first call of what it returns is not timed.
        baseline: the name of the one that others are compared with.
        rounds: turns of each.
        device: on which they work.
    """
    costs = {name: Cost() for name in makers}
    plain = makers[baseline]()
    plain()
    for turn in range(rounds):
        for name, make in makers.items():
            work, cost = make(), costs[name]
            if turn == 0:
                cost.peak_bytes = peak_bytes(device, work)
            else:
                work()
            cost.baseline_seconds.append(seconds(device, plain))
            cost.seconds.append(seconds(device, work))
    return costs


def seconds(device: torch.device, work: Work) -> float:
    """How long some work takes until the device is done with it."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_bytes(device: torch.device, work: Work) -> int | None:
    """The most that the tensors of some work take at a time, above what is held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - held
    if device.type == "cpu":
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it talks of its own start and end
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            work()
        events = profiler.profiler.kineto_results.events()
        changes = [event for event in events if event.name() == "[memory]"]
        changes.sort(key=lambda event: event.start_ns())
        return max(accumulate(event.nbytes() for event in changes), default=0)
    work()
    return None


def summary(cost: Cost, baseline: Cost) -> dict[str, Any]:
    """Medians over the rounds, and the quartiles of the ratio to the baseline."""
    pairs = zip(cost.seconds, cost.baseline_seconds, strict=True)
    ratios = sorted(seconds / plain for seconds, plain in pairs)
    quarter = len(ratios) // 4
    known = cost.peak_bytes is not None and baseline.peak_bytes
    return {
        "milliseconds": 1000 * statistics.median(cost.seconds),
        "ratio": statistics.median(ratios),
        "quartiles": [ratios[quarter], ratios[-1 - quarter]],
        "memory_ratio": cost.peak_bytes / baseline.peak_bytes if known else None,  # type: ignore[operator]
    }


def table(
    costs: Mapping[str, Cost], baseline: str, more: Mapping[str, Mapping[str, object]] = {}
) -> str:
    """Each cost and its ratio to the baseline's, and more columns by title and name."""
    rows = [["", "time", f"x {baseline}", "", "memory", f"x {baseline}", *more]]
    for name, cost in costs.items():
        numbers = summary(cost, costs[baseline])
        low, high = numbers["quartiles"]
        memory = ["-", "-"]
        if cost.peak_bytes is not None and numbers["memory_ratio"] is not None:
            memory = [f"{cost.peak_bytes / MIB:.0f} MiB", f"{numbers['memory_ratio']:.2f}"]
        rows.append([
            name, f"{numbers['milliseconds']:.1f} ms", f"{numbers['ratio']:.2f}",
            f"({low:.2f} to {high:.2f})", *memory, *(str(more[title][name]) for title in more),
        ])  # fmt: skip
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Words in columns; the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            word.rjust(width) if number else word.ljust(width)
            for number, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def numbers(costs: Mapping[str, Cost], baseline: str) -> dict[str, dict[str, Any]]:
    """All costs for a file: what was measured, and its :func:`summary`."""
    return {name: {**vars(cost), **summary(cost, costs[baseline])} for name, cost in costs.items()}


def write(file: Path, command: str, device: torch.device, found: Mapping[str, Any]) -> None:
    """Write what was found as JSON, with the command, the machine and the versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    threads = {"threads": torch.get_num_threads()}
    tree = {"command": command, **environment(name, 1), **threads, **found}
    file.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
