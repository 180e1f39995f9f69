"""Runner: does what is missing of a plan, each run in a process of its own.

Everything about a run lies in its folder and the two files beside it. ``results.json`` and
``cost.json`` say that it is done, ``failed.json`` that it failed and why; a folder without any of
these was interrupted, and goes on where its last checkpoint is.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import yaml

from benchmarks.plan import Plan, Planned
from mtlkit.errors import ConfigError

GRACE = 30.0
"""Seconds that a run gets to write its checkpoint when it is asked to end."""
PAUSE = 0.1
"""Seconds between two looks at the processes."""
LOG_LINES = 30
"""Of a failed run's output that are kept with the error."""
FAILED = "failed.json"
RUNS_FAILED = 4
"""Exit code, when the rest is done."""
ROOT = Path(__file__).parents[1]

Command = Callable[[Planned, Path, Path], list[str]]
"""From a run, the file of its recipe and its folder to the words that start it."""


def worker(run: Planned, recipe: Path, folder: Path) -> list[str]:
    """The words that train a run and measure it."""
    words = [sys.executable, "-m", "benchmarks.worker", str(recipe), str(folder)]
    return words if run.train else [*words, "--no-train"]


def is_done(folder: Path, *, train: bool) -> bool:
    """Whether nothing is missing of a run."""
    return (folder / "cost.json").is_file() and (not train or (folder / "results.json").is_file())


def failure(folder: Path) -> dict[str, Any] | None:
    """Why a run failed, if it did."""
    file = folder / FAILED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def run(plan: Plan, output: Path, jobs: int = 1, command: Command = worker) -> int:
    """Do what is missing and return the exit code.

    Args:
        plan: of a suite.
        output: folder for everything.
        jobs: runs at a time, which share the cores.
        command: how a run is started.

    Raises:
        ConfigError: another runner is at work there.
        KeyboardInterrupt: after all runs in progress have ended.
    """
    output.mkdir(parents=True, exist_ok=True)
    with _locked(output) as lock:
        plan.write(output / "plan.json")
        folder = output / "runs"
        folder.mkdir(exist_ok=True)
        by_seed = sorted(plan.runs.values(), key=lambda run: run.seed)
        missing = [run for run in by_seed if not is_done(folder / run.folder, train=run.train)]
        done = len(plan.runs) - len(missing)
        print(f"{len(plan.runs)} runs, {done} of them done already, {jobs} at a time", flush=True)
        threads = max(1, _cores() // jobs)
        workers = min(8, threads // 2)
        pool = _Pool(folder, command, _environment(threads), workers, lock.fileno())
        failed = pool.work(missing, jobs, done)
    return RUNS_FAILED if failed else 0


@contextmanager
def _locked(output: Path) -> Iterator[TextIO]:
    """Keep others out of a folder, also while runs are left of a runner that was killed."""
    with (output / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"{output} is in use by another runner (process {file.read().strip()}) or by runs "
                "that it left behind; wait for it, or choose another --output"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file


def _cores() -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return allowed or 1


def _environment(threads: int) -> dict[str, str]:
    """What every run gets: its share of the cores, unless the user gave a number."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
    }


@dataclass
class _Pool:
    """Runs in progress.

    Args:
        folder: of all runs.
        command: how one is started.
        environment: of each.
        workers: processes that load data, of each.
        lock: a file that they keep open, so that it stays locked until the last of them is gone.
    """

    folder: Path
    command: Command
    environment: Mapping[str, str]
    workers: int
    lock: int
    active: dict[str, tuple[Planned, subprocess.Popen[bytes], float]] = field(default_factory=dict)

    def work(self, missing: Sequence[Planned], jobs: int, done: int) -> int:
        """Do all of them and return how many failed."""
        waiting, total, failed = list(missing), done + len(missing), 0
        began, before = time.monotonic(), done
        with _ending_on_sigterm():
            try:
                while waiting or self.active:
                    while waiting and len(self.active) < jobs:
                        self.start(waiting.pop(0))
                    for run, seconds, error in self.ended():
                        done, failed = done + 1, failed + bool(error)
                        left = (time.monotonic() - began) / (done - before) * (total - done)
                        print(
                            f"[{done:{len(str(total))}}/{total}] {run.row}, seed {run.seed}: "
                            f"{f'failed: {error}' if error else 'ok'}, {seconds:.0f} s"
                            f"{f'; about {_span(left)} left' if done < total else ''}",
                            flush=True,
                        )
                    time.sleep(PAUSE)
            finally:
                self.end()
        return failed

    def start(self, run: Planned) -> None:
        """Start a run, or go on with it."""
        folder = self.folder / run.folder
        failed = failure(folder) is not None
        (folder / FAILED).unlink(missing_ok=True)
        goes_on = not failed and any((folder / "checkpoints").glob("last*"))
        if not goes_on and not (folder / "results.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
        recipe = folder.with_name(f"{run.folder}.yaml")
        options = dict(run.recipe)
        if options.get("workers", 0) is None:
            options["workers"] = self.workers
        recipe.write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        with folder.with_name(f"{run.folder}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(run, recipe, folder),
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches it once, through us
                pass_fds=(self.lock,),
            )
        self.active[run.id] = run, process, time.monotonic()

    def ended(self) -> Iterator[tuple[Planned, float, str | None]]:
        """The runs that have ended since the last look, with their seconds and errors."""
        for run, process, began in list(self.active.values()):
            code = process.poll()
            if code is None:
                continue
            del self.active[run.id]
            folder = self.folder / run.folder
            error = None if is_done(folder, train=run.train) else _error(code, folder)
            yield run, time.monotonic() - began, error

    def end(self) -> None:
        """Ask what is still at work to end, and end it if it does not."""
        left = [process for _, process, _ in self.active.values()]
        for process in left:
            process.terminate()
        patience = time.monotonic() + GRACE
        for process in left:
            try:
                process.wait(max(0.0, patience - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.active.clear()


def _error(code: int, folder: Path) -> str:
    """Note why a run failed, in its folder; returns one line."""
    log = folder.with_name(f"{folder.name}.log").read_text(encoding="utf-8", errors="replace")
    lines = [line for line in log.splitlines() if line.strip()][-LOG_LINES:]
    if code < 0:
        text = f"ended by {signal.Signals(-code).name}" + (
            ", as for lack of memory" if -code == signal.SIGKILL else ""
        )
    else:
        named = [line for line in lines if ": error: " in line]
        last = lines[-1] if lines else "it said nothing"
        text = (named[-1] if named else last).partition(": error: ")[2] or last
    folder.mkdir(parents=True, exist_ok=True)
    found = {"code": code, "error": text.strip(), "log": lines}
    (folder / FAILED).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return text.strip()


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Make SIGTERM end the runs as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _span(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
