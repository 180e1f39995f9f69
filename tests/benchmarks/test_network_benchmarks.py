"""The measurements of ``benchmarks/speed``: they compare the same networks, and run."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import mtan
import mtan_forms
import pytest
import torch

SPEED = Path(mtan.__file__).parent
SMALL = ["--size", "32", "--width", "2", "--rounds", "1"]


@pytest.mark.parametrize("network", mtan.NETWORKS)
def test_all_ways_train_the_same_network(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = Namespace(network=network, tasks=3, size=64, batch=4, width=4, precision="no")
    found = mtan.losses(args, steps=3)
    assert list(found) == ["study", "mtlkit", "contiguous", "recompute"]
    assert found["study"][0] != found["study"][2]
    for losses in found.values():
        assert losses == pytest.approx(found["study"], rel=2e-2)


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("form", mtan_forms.FORMS)
def test_every_form_of_a_block_computes_the_same(form: str, number: int, tasks: int) -> None:
    torch.manual_seed(0)
    block = mtan_forms.Block(number, tasks, 64, 2, 2, torch.channels_last)
    for name in ("first", "last", "shared"):
        setattr(block, name, getattr(block, name).detach().double().requires_grad_())
    for name in ("before", "looks", "masks"):
        doubles = [x.detach().double().requires_grad_() for x in getattr(block, name)]
        setattr(block, name, doubles)
    for ours, plain in zip(block.work(form), block.work("loop"), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("script", "options", "items"),
    [
        ("mtan.py", ["--network", "segnet", "--profile"], ["study", "mtlkit"]),
        ("mtan.py", ["--precision", "bf16", "--tasks", "6"], ["study", "mtlkit"]),
        ("mtan_forms.py", ["--contiguous"], ["block 1", "block 5"]),
    ],
)
def test_it_runs_as_a_script(
    script: str, options: list[str], items: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    line = [sys.executable, str(SPEED / script), *SMALL, *options, "--output", str(file)]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    tree = json.loads(file.read_text())
    assert tree["options"]["size"] == 32
    for item in items:
        assert item in (tree.get("items") or tree["blocks"])
        assert item in done.stdout
    assert ("operation" in done.stdout) == ("--profile" in options)
    assert list(tmp_path.iterdir()) == [file]
