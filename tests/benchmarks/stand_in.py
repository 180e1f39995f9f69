"""Runs that take no time: what a worker leaves, written by a process that trains nothing."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.plan import Plan, Planned, Row
from benchmarks.suite import Suite, from_mapping

SCORES = {"seg/miou": 0.5, "cls/accuracy": 0.8, "loss": 1.0}
VERSIONS = {"mtlkit": "0.1.0", "torch": "2.6"}

TINY = {
    "title": "Tiny", "question": "Does it run?", "rows": {"both": {}, "other": {}},
    "metrics": {"seg/miou": "higher", "cls/accuracy": "higher"}, "target": "seg/miou",
}  # fmt: skip


def tiny_suite(**changes: Any) -> Suite:
    return from_mapping({**TINY, **changes}, "tiny.yaml", name="tiny")


def planned(row: str, seed: int, **recipe: Any) -> Planned:
    options = {"seed": seed, "row": row, "lr": 0.001, "backbone": {"name": "timm"}, **recipe}
    id = hashlib.blake2b(json.dumps(options).encode(), digest_size=16).hexdigest()
    return Planned(id, row, seed, options)


def tiny_plan(seeds: int = 2, **changes: Any) -> Plan:
    """Two rows with two tasks each, and single tasks that both share."""
    runs: dict[str, Planned] = {}

    def ids(row: str) -> list[str]:
        made = [planned(row, seed) for seed in range(seeds)]
        runs.update({run.id: run for run in made})
        return [run.id for run in made]

    rows = []
    for name in ("both", "other"):
        mine = ids(name)
        rows.append(Row(name, mine, {task: ids(f"single {task}") for task in ("seg", "cls")}))
    return Plan(
        tiny_suite(**changes), False, "python -m benchmarks run tiny", "0.1.0", seeds, rows, runs
    )


def write_run(
    folder: Path, recipe: Mapping[str, Any], scores: Mapping[str, float] = SCORES
) -> None:
    """All that a run leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    row = {"step": 1, "epoch": 0, "split": "val", **scores}
    env = {"versions": VERSIONS, "python": "3.11", "device": "cpu", "commit": "c"}
    results = {"test": dict(scores), "val": dict(scores), "seconds": 1.0, "status": "ok"}
    cost = {
        "step_seconds": [0.1, 0.2, 0.3], "step_peak_bytes": 2**20, "process_peak_bytes": 2**30,
        "parameters": 7, "flops": 1e9, "threads": 1, "device": "cpu",
    }  # fmt: skip
    write = {
        "config.yaml": yaml.safe_dump(dict(recipe)),
        "env.json": json.dumps(env),
        "metrics.jsonl": json.dumps(row) + "\n",
        "results.json": json.dumps(results),
        "cost.json": json.dumps(cost),
    }
    for name, text in write.items():
        (folder / name).write_text(text)


WORKS = """
import os, pathlib, sys
recipe, folder, done = sys.argv[1:]
with open(done + ".pids", "a") as file:
    file.write(str(os.getpid()) + chr(10))
with open(done, "a") as file:
    file.write(pathlib.Path(folder).name + chr(10))
"""


def command(log: Path, *, fails: Sequence[str] = (), hangs: Sequence[str] = ()) -> Any:
    """Starts stand-ins that note their folders' names in ``log``; some rows fail or never end."""

    def words(run: Planned, recipe: Path, folder: Path) -> list[str]:
        ending = "import sys; sys.exit(0)"
        if run.row in fails:
            ending = "import sys; print('mtlkit train: error: no such thing'); sys.exit(2)"
        elif run.row in hangs:
            ending = "import time; time.sleep(600)"
        else:
            write_run(folder, run.recipe)
        return [sys.executable, "-S", "-c", WORKS + ending, str(recipe), str(folder), str(log)]

    return words


def done(log: Path) -> list[str]:
    """Names of the folders of the runs that were started."""
    return log.read_text().split() if log.exists() else []
