"""Runs in processes of their own that can be killed, started from one that has imported all."""

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

PRELOADED = [
    "mtlkit.api", "mtlkit.cli", "mtlkit_datasets.shapes", "mtlkit_tasks.seg", "mtlkit_tasks.cls",
    "mtlkit_tasks.bbox", "mtlkit_backbones.segnet", "jsonargparse",
]  # fmt: skip

SMALL = [
    "--tasks", "seg,cls,bbox", "--backbone", "segnet", "--backbone.width", "2",
    "--image-size", "32", "--batch-size", "4", "--accumulate", "2", "--epochs", "2",
    "--augment", "strong", "--data.train", "24", "--data.val", "4", "--data.test", "4",
    "--workers", "1", "--save-every", "1", "--log-every", "2",
]  # fmt: skip
"""Two epochs of three optimiser steps, saved after every one."""


def context() -> Any:
    """A way to start processes that is a fork of one with nothing running."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOADED)
    return made


def start(
    words: Sequence[str], output: Path, *, processes: int = 1, kill_at: int | None = None
) -> list[BaseProcess]:
    """``mtlkit train WORDS`` on one process or several, whose last words go to ``output``.

    Args:
        words: options.
        output: folder for what they print.
        processes: that train together.
        kill_at: number of the file operation, of the first process, that kills it.
    """
    output.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        place = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip
        settings = {"ACCELERATE_USE_CPU": "true", **(place if processes > 1 else {})}
        mine = kill_at if rank == 0 else None
        started.append(
            context().Process(
                target=_child, args=(list(words), settings, str(output / f"{rank}.txt"), mine)
            )
        )
        started[-1].start()
    return started


def _child(words: list[str], settings: dict[str, str], said: str, kill_at: int | None) -> None:
    os.environ.update(settings)
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import torch

    import mtlkit.api
    import mtlkit.train
    from mtlkit.cli import main

    torch.set_num_threads(1)
    mtlkit.train.draw = lambda run: None  # slow, and not what is tested
    mtlkit.api.report.write_after = lambda folder, say: None
    if kill_at is not None:
        _kill_at(kill_at)
    try:
        code = main(["train", *words])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    sys.stdout.flush()
    os._exit(code)  # gloo may abort at interpreter exit after success


def _kill_at(number: int) -> None:
    """Die at the operation on a file of that number: between it and the one before."""
    seen = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def ended(processes: Sequence[BaseProcess], seconds: float = 240) -> list[int | None]:
    """The exit codes, of processes that must end by themselves within that time."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()
    return codes


def outcome(run: Path) -> dict[str, Any]:
    """All that a run came to, without what depends on the clock or on where it is."""
    state = json.loads((run / "checkpoints" / "last" / "state.json").read_text())
    results = json.loads((run / "results.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for tree in (results, *lines):
        for key in ("seconds", "images_per_second", "peak_bytes"):
            tree.pop(key, None)
    return {
        "state": _without_clock(state),
        "results": results,
        "metrics": lines,
        **{
            f"{folder}/{name}": value.flatten().tolist()
            for folder in ("checkpoints/last/state", "checkpoints/best/state", "model/model")
            for name, value in load_file(run / f"{folder}.safetensors").items()
        },
    }


def _without_clock(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_clock(value) for key, value in tree.items()}
    if isinstance(tree, list):
        clock = ("seconds", "output", "resume", "logged", "config")
        return [
            _without_clock(value)
            for value in tree
            if not (isinstance(value, list) and value and value[0] in clock)
        ]
    return tree
