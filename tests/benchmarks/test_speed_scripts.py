"""The scripts in ``benchmarks/speed`` that have no tests of their own run, at their smallest."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from step import Steps

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
SCRIPTS = {
    "step": "--network segnet --width 4 --size 32 --batch 4 --rounds 1 --profile",
    "startup": "--rounds 1 -- --backbone segnet --backbone.width 4 --image-size 32 --batch-size 4 "
    "--data.train 8 --data.val 4 --data.test 4 --workers 0",
    "scaling": "--tasks 1 2 --sizes 32 64 --balancers equal upgrad --size 32 --batch 4 --rounds 1",
    "balancers": "--network segnet --size 32 --batch 2 --rounds 1 --balancers mgda",
}


def measured(script: str, folder: Path) -> dict[str, Any]:
    file = folder / "found.json"
    command = [sys.executable, str(SPEED / f"{script}.py"), "--output", str(file)]
    words = SCRIPTS[script].split()
    subprocess.run([*command, *words], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(file.read_text())
    assert SCRIPTS[script] in found["command"]
    return found


def test_a_step_by_hand_and_mtlkits_are_one_computation() -> None:
    """After one step of each from the same weights these are the same, but for rounding."""
    words = ["--backbone", "segnet", "--backbone.width", "4", "--image-size", "32"]
    after = []
    for way in (Steps.by_hand, Steps.mtlkit):
        torch.manual_seed(0)
        steps = Steps([*words, "--batch-size", "4", "--tasks", "seg,cls,bbox"])
        way(steps)()
        after.append(torch.cat([p.detach().reshape(-1) for p in steps.run.model.parameters()]))
    moved = (after[0] - after[1]).abs()
    assert moved.max() <= 2.1 * 1e-3  # Adam's first step is lr in the direction of the sign
    assert (moved < 1e-5).double().mean() > 0.98


@pytest.mark.slow
def test_the_step_is_measured_beside_one_by_hand(tmp_path: Path) -> None:
    assert set(measured("step", tmp_path)["steps"]) == {"by hand", "mtlkit"}


@pytest.mark.slow
def test_the_first_step_of_a_run_is_timed_and_its_imports_are_named(tmp_path: Path) -> None:
    found = measured("startup", tmp_path)
    assert found["first step"]["seconds"][0] > found["commands"]["python -c pass"]["seconds"][0]
    assert "torch" in found["first step"]["imported"]


@pytest.mark.slow
def test_tasks_sizes_and_processes_are_scaled(tmp_path: Path) -> None:
    found = measured("scaling", tmp_path)
    assert list(found["tasks"]) == ["1", "2"]
    assert list(found["sizes"]) == ["32 px", "64 px"]
    processes = found["processes"]
    assert list(processes) == ["equal, 1", "equal, 2", "upgrad, 1", "upgrad, 2"]
    if processes["equal, 2"]["bytes"]:  # this system counts the bytes of its loopback
        ratio = processes["upgrad, 2"]["bytes"] / processes["equal, 2"]["bytes"]
        assert 1.6 < ratio < 2.4  # (T + 1) / 2 for three tasks


@pytest.mark.slow
def test_balancers_are_measured_beside_other_libraries(tmp_path: Path) -> None:
    found = measured("balancers", tmp_path)
    assert {"by hand", "mtlkit equal", "mtlkit mgda, parameters", "mtlkit mgda, features"} <= set(
        found["steps"]
    )
    assert "TorchJD MGDA, batched" in found["steps"]
    assert found["floor"] >= 1
