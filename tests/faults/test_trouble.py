"""What strikes from outside: it is said in one line, within bounds, and nothing saved is lost."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from runs import SMALL as MANY
from runs import ended, outcome, start

import mtlkit.api
import mtlkit.train
from mtlkit.cli import main
from mtlkit.run import RunFolder

SMALL = [
    "--tasks", "seg,cls", "--backbone", "segnet", "--backbone.width", "2", "--image-size", "32",
    "--batch-size", "4", "--epochs", "2", "--data.train", "12", "--data.val", "4",
    "--data.test", "4", "--workers", "0", "--save-every", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the small run comes to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", *SMALL, "--output", str(folder)]) == 0
    return outcome(folder)


@pytest.fixture
def after_saving(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Have something happen after the run was saved so many times."""

    def set_up(number: int, happens: Callable[[], object]) -> None:
        save, count = mtlkit.train.save_last, 0

        def save_and_more(run: Any) -> None:
            nonlocal count
            save(run)
            count += 1
            if count == number:
                happens()

        monkeypatch.setattr(mtlkit.train, "save_last", save_and_more)

    return set_up


def resumes_to(folder: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert main(["train", "--resume", str(folder)]) == 0
    found = outcome(folder)
    for name in whole:
        assert repr(found[name]) == repr(whole[name]), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_between_two_steps(
    number: signal.Signals, tmp_path: Path, whole: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch, after_saving: Any, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    after_saving(1, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stopped:
        main(["train", *SMALL, "--output", str(tmp_path / "run")])
    assert stopped.value.code == 128 + number
    again = f"go on with: mtlkit train --resume {tmp_path / 'run'}"
    assert again in capsys.readouterr().out
    resumes_to(tmp_path / "run", whole, monkeypatch)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_signal_ends_an_evaluation_which_is_done_again(
    epoch: int, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, count = mtlkit.session.evaluate, 0

    def interrupted(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args, **options)

    monkeypatch.setattr(mtlkit.session, "evaluate", interrupted)
    with pytest.raises(SystemExit):
        main(["train", *SMALL, "--output", str(tmp_path / "run")])
    splits = [line["split"] for line in RunFolder(tmp_path / "run").history()]
    assert splits.count("val") == epoch - 1
    resumes_to(tmp_path / "run", whole, monkeypatch)


def test_two_runs_do_not_write_to_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with FileLock(run / ".lock"):
        assert main(["train", *SMALL, "--output", str(run)]) == 2
        assert capsys.readouterr().err == (
            f"mtlkit train: error: another run is writing to {run}; wait for its end, or choose "
            "another --output\n"
        )
    assert main(["train", *SMALL, "--output", str(run)]) == 0
    with FileLock(run / ".lock"):
        assert main(["train", "--resume", str(run)]) == 2
        assert "another run is writing to" in capsys.readouterr().err
    assert main(["train", "--resume", str(run)]) == 0


@contextmanager
def files_no_larger_than(number: int) -> Iterator[None]:
    """Writing more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_the_run_and_what_was_saved_is_whole(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, after_saving: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, before = tmp_path / "run", {}
    limits = files_no_larger_than(100_000)

    def fill() -> None:
        before.update({f: f.read_bytes() for f in run.rglob("checkpoints/*/*")})
        limits.__enter__()

    after_saving(2, fill)
    try:
        assert main(["train", *SMALL, "--output", str(run)]) == 1
    finally:
        limits.__exit__(None, None, None)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"cannot write {run}" in error
    assert "what was saved before is whole" in error
    assert f"go on with mtlkit train --resume {run}" in error
    assert {f: f.read_bytes() for f in run.rglob("checkpoints/*/*")} == before
    resumes_to(run, whole, monkeypatch)


def test_a_log_that_cannot_be_written_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunFolder.log

    def to_a_full_disk(self: RunFolder, *args: Any) -> None:
        self.metrics = Path("/dev/full")
        log(self, *args)

    monkeypatch.setattr(RunFolder, "log", to_a_full_disk)
    assert main(["train", *SMALL, "--output", str(tmp_path / "run")]) == 1
    assert "cannot write /dev/full: No space left on device" in capsys.readouterr().err


def test_a_folder_that_cannot_be_locked_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / ".lock").mkdir(parents=True)
    assert main(["train", *SMALL, "--output", str(run)]) == 2
    assert f"cannot write to the output folder {run}" in capsys.readouterr().err


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of pictures with classes."""
    root = tmp_path / "photographs"
    (root / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["id,cls,split"]
    for number in range(20):
        split = "train" if number < 12 else ("val" if number < 16 else "test")
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number:02d}.png")
        rows.append(f"{number:02d},{number % 2},{split}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def on(root: Path, run: Path, *more: str) -> list[str]:
    return [
        "train", "--data", "folder", "--data.root", str(root), "--tasks", "cls", "--backbone",
        "segnet", "--backbone.width", "2", "--image-size", "32", "--batch-size", "4",
        "--epochs", "3", "--save-every", "1", "--output", str(run), *more,
    ]  # fmt: skip


@pytest.mark.parametrize("workers", ["0", "1"])
def test_data_that_is_lost_in_mid_run_is_named(
    workers: str, photographs: Path, tmp_path: Path, after_saving: Any,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    after_saving(1, lambda: photographs.rename(tmp_path / "elsewhere"))
    assert main(on(photographs, run, "--workers", workers)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "of the data cannot be read" in error
    assert str(photographs / "images") in error
    assert "was the data moved or changed?" in error
    monkeypatch.undo()
    words = ["--data.root", str(tmp_path / "elsewhere")]
    assert main(["train", "--resume", str(run), *words]) == 0
    assert "resumed" in capsys.readouterr().out


KILLING = """
import multiprocessing, sys
import mtlkit.train
from mtlkit.cli import main

save = mtlkit.train.save_last

def save_and_kill(run):
    save(run)
    for child in multiprocessing.active_children():
        child.kill()

mtlkit.train.save_last = save_and_kill
sys.exit(main(sys.argv[1:]))
"""


def test_a_loading_process_that_is_killed_ends_the_run(photographs: Path, tmp_path: Path) -> None:
    """In a process of its own: torch tells whatever line is running, also lines of pytest."""
    words = on(photographs, tmp_path / "run", "--workers", "1", "--epochs", "20")
    done = subprocess.run(
        [sys.executable, "-c", KILLING, *words],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "a process that loads data was ended from outside" in error
    assert f"--resume {tmp_path / 'run'}" in error
    assert "Traceback" not in done.stderr


def test_clocks_that_go_back_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Stopped":
            return cls(2001, 2, 3, 4, 5, 6)

    monkeypatch.setattr(mtlkit.api, "datetime", Stopped)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", *SMALL, "--max-steps", "1"]) == 0
    name = "shapes-segnet-equal-20010203-040506"
    assert sorted(f.name for f in Path("runs").iterdir()) == [name, f"{name}-2"]
    for file in Path("runs", name).rglob("*"):
        os.utime(file, (1, 1) if "last" in str(file) else (2e9, 2e9))
    assert main(["train", "--resume", f"runs/{name}", "--max-steps", "2"]) == 0


@pytest.mark.slow
def test_a_process_that_hangs_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    words = [*MANY, "--epochs", "200", "--timeout", "0.1", "--output", str(tmp_path / "run")]
    processes = start(words, tmp_path / "said", processes=2)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert processes[1].pid is not None
    os.kill(processes[1].pid, signal.SIGSTOP)
    began = time.monotonic()
    processes[0].join(90)
    assert time.monotonic() - began < 60
    processes[1].kill()
    assert ended(processes)[0] == 1
    said = (tmp_path / "said" / "0.txt").read_text()
    assert "another process of this run is gone, or was later than --timeout allows" in said
    assert "Traceback" not in said


MEMORY = """
import resource, sys
import mtlkit.train
from mtlkit.cli import main

mtlkit.train.draw = lambda run: None

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

{body}
"""


def grown(body: str, *words: str) -> list[float]:
    """What a program of its own says about its memory."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.format(body=body), *words],
        capture_output=True, text=True, check=True, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


@pytest.mark.slow
def test_memory_does_not_grow_over_500_steps(tmp_path: Path) -> None:
    body = """
import mtlkit.saving as saving
sizes, save = [], mtlkit.train.save_last
mtlkit.train.save_last = lambda run: (save(run), sizes.append(held()))
assert main(["train", *sys.argv[1:]]) == 0
print(sizes[1], sizes[-1])
"""
    words = [*SMALL[:-2], "--epochs", "170", "--save-every", "50", "--balancer", "mgda"]
    early, late = grown(body, *words, "--output", str(tmp_path / "run"))
    assert late < 1.15 * early


@pytest.mark.slow
def test_memory_does_not_grow_over_resumes(tmp_path: Path) -> None:
    body = """
*words, run = sys.argv[1:]
sizes = []
assert main(["train", *words, "--output", run]) == 0
for epochs in range(3, 8):
    assert main(["train", "--resume", run, "--epochs", str(epochs)]) == 0
    sizes.append(held())
print(sizes[0], sizes[-1])
"""
    early, late = grown(body, *SMALL, str(tmp_path / "run"))
    assert late < 1.15 * early
