"""Runs a function on several processes at once; must be importable by them."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

Work = Callable[[Accelerator], Any]
"""What every process does; its result must be what ``torch.save`` can save as plain data."""


def run_together(work: Work, processes: int, folder: Path) -> list[Any]:
    """The results of ``work`` on each process, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    started = [
        context.Process(target=_worker, args=(work, rank, processes, port, str(folder)))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=240)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def _worker(work: Work, rank: int, processes: int, port: int, folder: str) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes),
        LOCAL_WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == processes
    torch.save(work(accelerator), Path(folder) / f"{rank}.pt")
    os._exit(0)  # gloo may abort at interpreter exit after success
