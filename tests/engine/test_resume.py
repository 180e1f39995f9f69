"""A run that was cut and goes on ends where an uncut one ends, bit by bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from balancer_cases import build, buildable
from safetensors.torch import load_file

import mtlkit.train
from mtlkit.cli import main

SMALL = [
    "--tasks", "seg,cls,bbox", "--backbone", "segnet", "--backbone.width", "2",
    "--image-size", "32", "--batch-size", "8", "--epochs", "6", "--augment", "strong",
    "--data.train", "16", "--data.val", "5", "--data.test", "7", "--workers", "0",
]  # fmt: skip
OPTIONS = {
    "torchjd": ["--balancer.method", "GradVac"],
    "fixed": ["--balancer.weights", "seg=1,cls=2,bbox=3"],
}


def remembers(name: str) -> bool:
    balancer = build(name)
    return bool(balancer.state_dict()) or balancer.needs == "columns"


CASES = [["--balancer", name, *OPTIONS.get(name, [])] for name in buildable() if remembers(name)]
CASES += [
    ["--balancer", "cagrad", "--smooth", "0.9", "--balance-every", "3"],
    ["--balancer", "torchjd", *OPTIONS["torchjd"]],
    ["--balancer", "mgda", "--gradients", "features", "--accumulate", "2", "--batch-size", "4"],
]


@pytest.mark.slow
@pytest.mark.parametrize("options", CASES, ids=" ".join)
def test_resuming_after_three_of_six_epochs_ends_at_the_same_bits(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", *SMALL, *options]
    monkeypatch.setattr(mtlkit.train, "draw", lambda run: None)
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    save = mtlkit.train.save_last

    def crash_after_three_epochs(run: Any) -> None:
        save(run)
        if run.epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mtlkit.train, "save_last", crash_after_three_epochs)
        assert main([*command, "--output", str(tmp_path / "cut")]) == 130
    page = (tmp_path / "cut" / "report.html").read_text()
    assert "This run did not finish" in page
    assert main(["train", "--resume", str(tmp_path / "cut")]) == 0
    assert "did not finish" not in (tmp_path / "cut" / "report.html").read_text()
    whole, cut = (
        load_file(tmp_path / name / "checkpoints" / "last" / "state.safetensors")
        for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    for name in whole:
        assert torch.equal(whole[name].nan_to_num(7), cut[name].nan_to_num(7)), name
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    assert lines[0][-1] == lines[1][-1]
