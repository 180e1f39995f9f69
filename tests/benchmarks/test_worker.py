"""Runs that really train, at their smallest."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from stand_in import TINY

from benchmarks import worker

ROOT = Path(__file__).parents[2]
SMALLEST = {
    "backbone": {"name": "segnet", "width": 2}, "tasks": "seg", "image-size": 32, "batch-size": 4,
    "data": {"name": "shapes", "size": 32, "train": 8, "val": 4, "test": 4}, "epochs": 1,
}  # fmt: skip


def recipe(folder: Path, **changes: object) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**SMALLEST, "workers": 0, **changes}))
    return file


def test_a_step_is_measured_without_training(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert worker.main(recipe(tmp_path), folder, train=False) == 0
    assert [path.name for path in folder.iterdir()] == ["cost.json"]
    cost = json.loads((folder / "cost.json").read_text())
    assert len(cost["step_seconds"]) == worker.ROUNDS
    assert cost["step_peak_bytes"] > 8 * cost["parameters"], "Adam's two states alone take that"
    assert cost["process_peak_bytes"] is None


def test_flops_are_twice_the_multiplications_of_an_image(tmp_path: Path) -> None:
    one, two = (
        worker.cost(yaml.safe_load(recipe(tmp_path, **{"batch-size": size}).read_text()))
        for size in (2, 4)
    )
    assert one["flops"] == two["flops"]
    first = 2 * 32 * 32 * 3 * 3 * (3 * 2 + 2 * 2)  # the first block's two convolutions
    assert first < one["flops"] < 40 * first


def test_a_run_that_cannot_begin_gives_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert worker.main(recipe(tmp_path, lr=-1), tmp_path / "run") == 2
    assert "mtlkit train: error: " in capsys.readouterr().err


def test_results_that_are_there_are_kept(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("{}")
    assert worker.main(recipe(tmp_path), tmp_path / "run") == 0
    assert (tmp_path / "run" / "results.json").read_text() == "{}"
    assert (tmp_path / "run" / "cost.json").is_file()


@pytest.mark.slow
def test_a_suite_is_run_reported_and_not_run_again(tmp_path: Path) -> None:
    suite = {**TINY, "options": SMALLEST, "seeds": 1, "rows": {"seg": {}, "wrong": {"lr": 1e15}},
             "metrics": {"seg/miou": "higher"}, "baseline": {"lr": 1e-3}}  # fmt: skip
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(suite))
    words = [
        "-m",
        "benchmarks",
        "run",
        str(file),
        "--output",
        str(tmp_path / "out"),
        "--log-every",
        "1",
    ]

    def start() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
        )

    first = start()
    assert first.returncode == 4, first.stderr
    assert re.search(r"wrong, seed 0: failed: .* of task 'seg' is not finite", first.stdout)
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| seg | 1 of 1 |" in report
    assert "| wrong | 0 of 1 |" in report
    run = next((tmp_path / "out" / "runs").glob("seg-0-*/results.json"))
    assert json.loads(run.read_text())["status"] == "ok"
    cost = json.loads(run.with_name("cost.json").read_text())
    assert cost["process_peak_bytes"] > 2**20
    before = run.stat().st_mtime_ns
    again = start()
    assert again.returncode == 4
    assert "1 of them done already" in again.stdout
    assert run.stat().st_mtime_ns == before
