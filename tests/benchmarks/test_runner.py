"""The runner, with runs that take no time."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from stand_in import command, done, tiny_plan, write_run

from benchmarks import runner
from mtlkit.errors import ConfigError

FOLDERS = sorted(run.folder for run in tiny_plan().runs.values())
"""Two rows and two single tasks, that the rows share, with two seeds each."""


def test_every_run_is_done_once_although_rows_share_some(tmp_path: Path) -> None:
    assert runner.run(tiny_plan(), tmp_path, jobs=3, command=command(tmp_path / "log")) == 0
    assert sorted(done(tmp_path / "log")) == FOLDERS
    assert len(FOLDERS) == 8


def test_the_first_seeds_of_all_rows_come_first(tmp_path: Path) -> None:
    runner.run(tiny_plan(), tmp_path, command=command(tmp_path / "log"))
    seeds = [name.split("-")[-2] for name in done(tmp_path / "log")]
    assert seeds == ["0"] * 4 + ["1"] * 4


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    plan = tiny_plan()
    first = plan.runs[plan.rows[0].runs[0]]
    write_run(tmp_path / "runs" / first.folder, first.recipe)
    runner.run(plan, tmp_path, command=command(tmp_path / "log"))
    assert sorted(done(tmp_path / "log")) == sorted(set(FOLDERS) - {first.folder})
    runner.run(plan, tmp_path, command=command(tmp_path / "again"))
    assert done(tmp_path / "again") == []


def test_a_failed_run_is_kept_and_tried_again_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan()
    code = runner.run(plan, tmp_path, command=command(tmp_path / "log", fails=["other"]))
    assert code == 4
    assert sorted(done(tmp_path / "log")) == FOLDERS
    failed = plan.runs[plan.rows[1].runs[0]]
    found = runner.failure(tmp_path / "runs" / failed.folder)
    assert found is not None
    assert (found["code"], found["error"]) == (2, "no such thing")
    assert "other, seed 0: failed: no such thing" in capsys.readouterr().out
    assert runner.run(plan, tmp_path, command=command(tmp_path / "again")) == 0
    assert sorted(done(tmp_path / "again")) == sorted(name for name in FOLDERS if "other" in name)
    assert runner.failure(tmp_path / "runs" / failed.folder) is None


def test_a_run_that_ends_well_but_leaves_nothing_has_failed(tmp_path: Path) -> None:
    words = [sys.executable, "-S", "-c", "print('went home')"]
    assert runner.run(tiny_plan(), tmp_path, command=lambda run, recipe, folder: words) == 4
    found = runner.failure(tmp_path / "runs" / FOLDERS[0])
    assert found is not None
    assert found["error"] == "went home"


def test_a_run_that_is_killed_says_so(tmp_path: Path) -> None:
    words = [sys.executable, "-S", "-c", "import os; os.kill(os.getpid(), 9)"]
    runner.run(tiny_plan(1), tmp_path, command=lambda run, recipe, folder: words)
    found = runner.failure(tmp_path / "runs" / FOLDERS[0])
    assert found is not None
    assert found["error"] == "ended by SIGKILL, as for lack of memory"


@pytest.mark.parametrize("checkpoint", ["last", "last.old"])
def test_an_interrupted_run_with_a_checkpoint_is_left_to_go_on(
    tmp_path: Path, checkpoint: str
) -> None:
    kept = tmp_path / "runs" / FOLDERS[0] / "checkpoints" / checkpoint
    kept.mkdir(parents=True)
    lost = tmp_path / "runs" / FOLDERS[1] / "plots"
    lost.mkdir(parents=True)
    runner.run(tiny_plan(), tmp_path, command=command(tmp_path / "log"))
    assert kept.is_dir()
    assert not lost.exists()


def test_a_failed_run_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / FOLDERS[0]
    (folder / "checkpoints" / "last").mkdir(parents=True)
    (folder / runner.FAILED).write_text('{"error": "loss is not finite"}')
    runner.run(tiny_plan(), tmp_path, command=command(tmp_path / "log"))
    assert not (folder / "checkpoints").exists()


def test_a_run_that_is_trained_but_not_measured_keeps_its_results(tmp_path: Path) -> None:
    plan = tiny_plan()
    run = plan.runs[plan.rows[0].runs[0]]
    folder = tmp_path / "runs" / run.folder
    write_run(folder, run.recipe)
    (folder / "cost.json").unlink()
    (folder / "own").touch()
    (folder / runner.FAILED).write_text('{"error": "not measured"}')
    runner.run(plan, tmp_path, command=command(tmp_path / "log"))
    assert (folder / "own").exists()
    assert runner.failure(folder) is None
    assert run.folder in done(tmp_path / "log")


def test_a_second_runner_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4711\n")
        file.flush()
        with pytest.raises(ConfigError, match=r"is in use by another runner \(process 4711\)"):
            runner.run(tiny_plan(), tmp_path, command=command(tmp_path / "log"))
    assert runner.run(tiny_plan(), tmp_path, command=command(tmp_path / "log")) == 0


HANGS = """
import sys
from pathlib import Path
from stand_in import command, tiny_plan
from benchmarks import __main__, runner
out = Path(sys.argv[1])
__main__.plan.make = lambda *a, **k: tiny_plan()
real, hangs = runner.run, command(out / "log", hangs=["both", "other"])
runner.run = lambda plan, output, jobs: real(plan, output, jobs, hangs)
sys.exit(__main__.main(["run", "table1", "--output", str(out), "--jobs", "2"]))
"""


def hanging(output: Path) -> subprocess.Popen[bytes]:
    """A runner with two runs in progress that never end by themselves."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parents[1]), *sys.path]
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(output)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )
    give_up = time.monotonic() + 60
    while len(done(output / "log")) < 2 and time.monotonic() < give_up:
        time.sleep(0.05)
    return process


def test_runs_that_a_killed_runner_left_behind_keep_others_out(tmp_path: Path) -> None:
    process = hanging(tmp_path)
    process.kill()
    process.wait()
    try:
        with pytest.raises(ConfigError, match="or by runs that it left behind"):
            runner.run(tiny_plan(), tmp_path, command=command(tmp_path / "again"))
    finally:
        for pid in done(tmp_path / "log.pids"):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_all_runs_and_the_next_start_does_the_rest(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = hanging(tmp_path)
    process.send_signal(number)
    assert process.wait(30) == code
    with (tmp_path / "lock").open() as file:  # runs that were left would keep it locked
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    runs = tmp_path / "runs"
    left = [name for name in FOLDERS if not runner.is_done(runs / name, train=True)]
    assert len(left) >= 4
    assert runner.run(tiny_plan(), tmp_path, command=command(tmp_path / "again")) == 0
    assert sorted(done(tmp_path / "again")) == left
    assert not list((tmp_path / "runs").glob(f"*/{runner.FAILED}"))


def test_the_cores_are_shared_unless_the_user_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert runner._environment(3)["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert runner._environment(3)["OMP_NUM_THREADS"] == "5"
