"""Resuming with other tasks, options, or numbers of processes: right, or refused by name."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import mtlkit
import mtlkit.train
from mtlkit.cli import main

SMALL = [
    "--backbone", "segnet", "--backbone.width", "2", "--image-size", "32", "--batch-size", "4",
    "--data.train", "8", "--data.val", "4", "--data.test", "4", "--workers", "0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtlkit.train, "draw", lambda run: None)


def train(*words: str) -> int:
    return main(["train", *words])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    words = ["--tasks", "seg,cls", "--epochs", "2", "--balancer", "uncertainty"]
    assert train(*SMALL, *words, "--output", str(folder)) == 0
    return folder


def state(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "last" / "state.safetensors")


def files(folder: Path) -> dict[Path, bytes]:
    return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_task_is_added(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, kept = state(run), files(run / "model")
    assert train("--resume", str(run), "--tasks", "seg,cls,edge", "--epochs", "3") == 0
    said = capsys.readouterr().out
    assert "new: edge, " in said
    assert "balancer uncertainty begins anew" in said
    assert f"the run as it was is kept in {run / 'before-step-4'}" in said
    after = state(run)
    moved = [n for n in before if n.startswith("/optimizer/state") and n.endswith("step")]
    assert {float(after[n]) for n in moved if n in after and "/model." in n} == {6.0}
    assert {float(after[n]) for n in after if "heads.edge" in n and n.endswith("step")} == {2.0}
    assert yaml.safe_load((run / "config.yaml").read_text())["tasks"].keys() == {
        "seg", "cls", "edge",
    }  # fmt: skip
    assert set(mtlkit.load(run).tasks) == {"seg", "cls", "edge"}
    assert set(mtlkit.load(run / "before-step-4").tasks) == {"seg", "cls"}
    assert list(files(run / "before-step-4" / "model").values()) == list(kept.values())
    assert train("--resume", str(run), "--epochs", "4") == 0  # what was added stays
    assert train("--resume", str(run / "before-step-4"), "--epochs", "3") == 0


def test_a_task_is_removed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--resume", str(run), "--tasks", "cls", "--epochs", "3") == 0
    assert "dropped: seg, " in capsys.readouterr().out
    assert set(mtlkit.load(run).tasks) == {"cls"}
    assert not any("heads.seg" in name for name in state(run))


def test_what_is_known_of_a_network_is_taken_up(run: Path) -> None:
    """Without a step in between, what a new task does not touch is as it was."""
    before = state(run)
    words = ["--resume", str(run), "--tasks", "seg,cls,edge", "--epochs", "3", "--lr", "1e-30"]
    assert train(*words, "--weight-decay", "0") == 0
    after = state(run)
    names = [n for n in before if n.startswith("/model/") and n.endswith(("weight", "bias"))]
    assert names
    for name in names:
        assert torch.equal(before[name], after[name]), name


def test_another_task_needs_steps_to_be_trained(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(run)
    assert train("--resume", str(run), "--tasks", "seg,cls,edge") == 2
    assert capsys.readouterr().err == (
        f"mtlkit train: error: {run} has done all of its 4 steps: to go on with other tasks, give "
        "more --epochs or --max-steps\n"
    )
    assert files(run) == before


REFUSED = {
    "--batch-size 2": "images in an optimiser step: 2, but before 4",
    "--data.train 16": "optimiser steps in an epoch: 4, but before 2",
    "--data.train 9": "training images: 9, but before 8",
    "--image-size 64": "--image-size: [64, 64], but before [32, 32]",
    "--optimizer sgd": "--optimizer: sgd, but before adamw",
    "--seed 5": "--seed: 5, but before 0",
    "--overfit 4": "--overfit: 4, but before 0",
    "--backbone.width 4": "has the shape",
    "--tasks.seg.head fpn": "heads.seg.",
    "--backbone mtan --backbone.width 2": "the checkpoint has no backbone.",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_go_on_is_refused_by_name_and_nothing_is_touched(
    words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(run)
    assert train("--resume", str(run), "--epochs", "3", *words.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert REFUSED[words] in error
    assert files(run) == before


def test_options_that_may_change_do(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--lr", "0.0123", "--scheduler", "none", "--weight-decay", "0.25", "--epochs", "3"]
    assert train("--resume", str(run), *words, "--balancer", "dwa", "--log-every", "1") == 0
    assert "balancer dwa begins anew" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines if line["split"] == "train"][-1] == 0.0123
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["weight_decay"] == 0.25
    groups = json.loads((run / "checkpoints/last/state.json").read_text())
    assert '["weight_decay", 0.25]' in json.dumps(groups)


def test_accumulation_may_change_if_a_step_stays_as_large(run: Path) -> None:
    words = ["--batch-size", "2", "--accumulate", "2", "--epochs", "3"]
    assert train("--resume", str(run), *words) == 0


def test_nothing_to_go_on_from_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, "--tasks", "cls", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert train("--resume", *words) == 2
    assert "config.yaml" in capsys.readouterr().err
    assert train(*words) == 0
    for folder in (run_ := tmp_path / "run").glob("checkpoints/*"):
        folder.rename(tmp_path / folder.name)
    assert train("--resume", str(run_)) == 2
    assert "nothing to resume in" in capsys.readouterr().err


def test_a_run_that_ended_before_anything_was_saved_begins_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def crash(run: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mtlkit.train, "save_last", crash)
        words = ["--tasks", "cls", "--epochs", "1", "--log-every", "1", "--output", str(run)]
        assert train(*SMALL, *words) == 130
    assert train("--resume", str(run)) == 0
    assert (
        f"nothing was saved in {run} yet: it starts from the beginning" in capsys.readouterr().out
    )
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2, 2]


@pytest.fixture
def two() -> list[str]:
    """A command that trains on two processes."""
    return [sys.executable, "-m", "mtlkit", "train", "--num-processes", "2"]


@pytest.mark.slow
def test_the_number_of_processes_may_change_if_a_batch_stays_as_large(
    tmp_path: Path, two: list[str]
) -> None:
    """Without batch normalisation and dropout it is then the same training."""
    words = [*SMALL, "--tasks", "cls,bbox", "--backbone.norm", "none", "--optimizer", "sgd"]
    words += ["--scheduler", "none"]  # another would follow the planned steps
    words += ["--balancer", "moco", "--data.train", "16", "--max-steps", "2", "--epochs", "2"]
    quiet = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}

    def on_two(*more: str) -> None:
        done = subprocess.run([*two, *more], env=quiet, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    whole = [*words[:-4], "--epochs", "2"]
    assert train(*whole, "--output", str(tmp_path / "whole")) == 0
    assert train(*words, "--output", str(tmp_path / "one")) == 0
    on_two("--resume", str(tmp_path / "one"), "--max-steps", "0", "--batch-size", "2")
    on_two(*words, "--batch-size", "2", "--output", str(tmp_path / "two"))
    assert train("--resume", str(tmp_path / "two"), "--max-steps", "0", "--batch-size", "4") == 0
    expected = load_file(tmp_path / "whole/checkpoints/last/state.safetensors")
    for name in ("one", "two"):
        found = load_file(tmp_path / name / "checkpoints/last/state.safetensors")
        for key in expected:
            if key.startswith(("/model/", "/columns/")):
                torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-5)


def test_a_number_of_processes_that_makes_a_batch_another_is_refused(
    run: Path, two: list[str]
) -> None:
    done = subprocess.run(
        [*two, "--resume", str(run), "--epochs", "3"],
        env={**os.environ, "ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "images in an optimiser step: 8, but before 4" in done.stderr
