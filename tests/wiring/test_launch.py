"""Several processes on one machine: what they get, and what becomes of them."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mtlkit import launch
from mtlkit.errors import ConfigError


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell script in place of the Python that the processes run."""
    for name in ("WORLD_SIZE", "OMP_NUM_THREADS", "ACCELERATE_USE_CPU", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    script = tmp_path / "child.sh"
    script.touch(mode=0o755)
    monkeypatch.setattr(launch.sys, "executable", str(script))
    monkeypatch.setattr(launch, "_gpus", lambda: 0)
    return script


def write(script: Path, body: str) -> None:
    script.write_text(f"#!/bin/sh\n{body}\n")


def test_every_process_is_told_its_place(child: Path, tmp_path: Path) -> None:
    names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR ACCELERATE_USE_CPU"
    values = " ".join(f"${name}" for name in names.split())
    write(child, f'echo {values} "$@" > {tmp_path}/out$RANK; echo $OMP_NUM_THREADS $MASTER_PORT '
                 f"> {tmp_path}/more$RANK")  # fmt: skip
    assert launch.launch(["--epochs=1"], 2) == 0
    for rank in "01":
        line = (tmp_path / f"out{rank}").read_text().strip()
        assert line == f"{rank} {rank} 2 2 127.0.0.1 true -m mtlkit.train --epochs=1"
    threads, port = (tmp_path / "more0").read_text().split()
    assert int(threads) == max(1, len(os.sched_getaffinity(0)) // 2)
    assert (tmp_path / "more1").read_text().split() == [threads, port]


def test_threads_that_the_user_sets_stay(
    child: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    write(child, f"echo $OMP_NUM_THREADS > {tmp_path}/out$RANK")
    launch.launch([], 2)
    assert (tmp_path / "out1").read_text() == "7\n"


def test_when_one_fails_the_others_are_ended_and_its_code_is_returned(child: Path) -> None:
    write(child, '[ "$RANK" = 1 ] && exit 5; exec sleep 60')
    started = time.monotonic()
    assert launch.launch([], 2) == 5
    assert time.monotonic() - started < 10


def test_one_that_does_not_end_when_asked_is_made_to(
    child: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.2)
    write(
        child, '[ "$RANK" = 1 ] && sleep 0.5 && exit 5; trap "" TERM; while :; do sleep 0.1; done'
    )
    assert launch.launch([], 2) == 5


def test_a_process_that_a_signal_killed_gives_128_and_its_number(child: Path) -> None:
    write(child, "kill -KILL $$")
    assert launch.launch([], 2) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on_once_and_waited_for(
    child: Path, tmp_path: Path, number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    write(child, f'trap "sleep $RANK; echo x >> {tmp_path}/got$RANK; exit {128 + number}" {name}; '
                 f"touch {tmp_path}/up$RANK; while :; do sleep 0.05; done")  # fmt: skip
    ours = signal.signal(number, signal.default_int_handler)  # else a child may inherit "ignore"
    before = signal.getsignal(number)

    def interrupt() -> None:
        while len(list(tmp_path.glob("up*"))) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert launch.launch([], 2) == 128 + number
    thread.join()
    for rank in "01":
        assert (tmp_path / f"got{rank}").read_text() == "x\n"
    assert signal.getsignal(number) is before
    signal.signal(number, ours)


def test_more_processes_than_gpus_are_refused(child: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_gpus", lambda: 1)
    with pytest.raises(ConfigError) as caught:
        launch.launch([], 2)
    assert str(caught.value) == (
        "--num-processes is 2, but this machine has 1 GPU; ask for as many, or set "
        "ACCELERATE_USE_CPU=true to use the CPU"
    )
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    write(child, "exit 0")
    assert launch.launch([], 2) == 0


def test_a_launcher_under_a_launcher_is_refused(
    child: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError) as caught:
        launch.launch([], 2)
    assert str(caught.value) == (
        "--num-processes cannot be used under a launcher that sets WORLD_SIZE"
    )


def told(caplog: pytest.LogCaptureFixture) -> bool:
    launch.check_world()
    return bool(caplog.messages)


def test_accelerate_that_started_one_process_of_several_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("WORLD_SIZE", "MASTER_PORT", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    assert not told(caplog)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert not told(caplog)  # accelerate launch, one process
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert told(caplog)
    assert caplog.messages == [
        "mtlkit: note: accelerate launch was asked for several processes but started only this "
        "one; use: mtlkit train --num-processes N ..."
    ]
    caplog.clear()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not told(caplog)  # accelerate launch --multi_gpu
