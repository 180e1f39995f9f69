"""Launch: one training process per device, on this machine, and what becomes of them."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from mtlkit.errors import ConfigError

GRACE = 30.0
"""Seconds that a process gets to end by itself after it was asked to."""

log = logging.getLogger("mtlkit")


def launch(argv: Sequence[str], processes: int) -> int:
    """Run ``mtlkit train ARGV`` on several processes, on GPUs if there are any, else on the CPU.

    Ctrl-C and SIGTERM are passed on. When one process fails the others are ended.

    Returns:
        The exit code of the process that failed first, or 0.

    Raises:
        ConfigError: there are GPUs, but fewer than processes; or a launcher is at work already.
    """
    if "WORLD_SIZE" in os.environ:
        raise ConfigError("--num-processes cannot be used under a launcher that sets WORLD_SIZE")
    shared = environment(processes)
    command = [sys.executable, "-m", "mtlkit.train", *argv]
    children = [
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            start_new_session=True,  # so that Ctrl-C reaches each of them once, through us
        )
        for rank in range(processes)
    ]
    with _passing_signals_to(children) as passed:
        try:
            return _wait(children)
        finally:
            _end(children, asked=bool(passed))


def check_world() -> None:
    """Warn when a launcher was asked for several processes but started just this one.

    ``accelerate launch --cpu --num_processes 2`` sets an address to meet at and then starts one
    process, unless mpirun is there.
    """
    mpi = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "WORLD_SIZE")
    simple = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
    if simple and not any(name in os.environ for name in mpi):
        log.warning(
            "mtlkit: note: accelerate launch was asked for several processes but started only "
            "this one; use: mtlkit train --num-processes N ..."
        )


def environment(processes: int) -> dict[str, str]:
    """What all processes get: where to meet, on what to run, how many threads each."""
    world = str(processes)
    shared = {
        **os.environ,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    gpus = 0 if "ACCELERATE_USE_CPU" in os.environ else _gpus()
    if gpus == 0:
        shared["ACCELERATE_USE_CPU"] = "true"
    elif gpus < processes:
        raise ConfigError(
            f"--num-processes is {processes}, but this machine has {gpus} GPU{'s' * (gpus > 1)}; "
            "ask for as many, or set ACCELERATE_USE_CPU=true to use the CPU"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shared.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // processes)))
    return shared


def _gpus() -> int:
    import torch  # the configuration was checked before, so it is there already

    return torch.cuda.device_count()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(children: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Until all ended well or one did not."""
    running = list(children)
    while running:
        for child in running:
            if child.poll():
                if child.returncode < 0:
                    _say_killed(children.index(child), -child.returncode)
                return _exit_code(child.returncode)
        running = [child for child in running if child.returncode is None]
        time.sleep(0.05)
    return 0


def _say_killed(rank: int, number: int) -> None:
    why = " (often the system does, for want of memory)" if number == signal.SIGKILL else ""
    name = signal.Signals(number).name
    log.error(
        "mtlkit train: error: process %d of the run was ended by %s%s; go on with "
        "mtlkit train --resume and the folder of the run", rank, name, why,
    )  # fmt: skip


def _exit_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _end(children: Sequence["subprocess.Popen[bytes]"], *, asked: bool) -> None:
    """Ask those still running to end, unless a signal did so already; then make them."""
    running = [child for child in children if child.poll() is None]
    for child in running:
        if not asked:
            child.terminate()
    deadline = time.monotonic() + GRACE
    for child in running:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def _passing_signals_to(children: Sequence["subprocess.Popen[bytes]"]) -> Iterator[list[int]]:
    """Signals go on to the children; yields the list of those that came."""
    passed: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        passed.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
