"""The benchmark of evaluation, at its smallest, and that it compares equal things."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "speed" / "evaluation.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluation_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_writes_the_share_of_the_metrics(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    small = "--tasks seg,cls --backbone segnet --size 32 --batch 2 --images 3 --rounds 1"
    command = [sys.executable, str(FILE), *small.split(), "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "share" in done.stdout
    found = json.loads(output.read_text())
    assert set(found["evaluation"]) == {"evaluation", "all metrics", "of seg", "of cls"}
    assert found["evaluation"]["all metrics"]["ratio"] < 1
    assert {"mtlkit", "torchmetrics"} <= set(found["segmentation"])


@pytest.mark.parametrize("classes", [2, 3])
def test_both_sides_find_the_same_numbers(benchmark: ModuleType, classes: int) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(4, classes, 16, 16, generator=random)
    truth = torch.randint(0, classes, (4, 16, 16), generator=random).byte()
    truth[:, :3] = 255
    ours = benchmark.ours(logits, truth)
    ours()
    found = ours.args[0].compute()
    theirs = benchmark.their_metrics(classes, validate_args=True)
    benchmark.update_theirs(theirs, logits, truth)
    names = ("miou", "weighted_iou", "f1")
    expected = {name: float(m.compute()) for name, m in zip(names, theirs, strict=True)}
    assert {name: float(found[name]) for name in names} == pytest.approx(expected)
