"""``mtlkit bench``: the costs that it prints, on a network small enough for a test."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlkit.cli import main

SMALL = [
    "--backbone", "segnet", "--backbone.width", "4", "--image-size", "32", "--batch-size", "4",
    "--data.train", "16", "--data.val", "4", "--data.test", "4", "--rounds", "1",
]  # fmt: skip

Output = pytest.CaptureFixture[str]


def measured(folder: Path, *options: str) -> dict[str, Any]:
    file = folder / "costs.json"
    assert main(["bench", *SMALL, *options, "--output", str(file)]) == 0
    loaded: dict[str, Any] = json.loads(file.read_text())
    return loaded


def test_passes_through_the_network_are_those_of_the_method(tmp_path: Path) -> None:
    costs = measured(tmp_path, "--balancers", "mgda,famo,graddrop")["balancers"]
    passes = {name: (c["forward_passes"], c["backward_passes"]) for name, c in costs.items()}
    assert passes == {"equal": (1, 1), "mgda": (1, 3), "famo": (2, 1), "graddrop": (1, 3)}


def test_steps_that_reuse_weights_are_measured_with_those_that_decide(tmp_path: Path) -> None:
    costs = measured(tmp_path, "--balancers", "mgda", "--balance-every", "4")["balancers"]
    assert costs["mgda"]["backward_passes"] == (3 + 1 + 1 + 1) / 4


def test_memory_of_the_gradients_is_counted_each_time_anew(tmp_path: Path) -> None:
    from mtlkit_datasets.shapes import Shapes

    from mtlkit.build import build_model
    from mtlkit.settings import Choice, TaskChoice
    from mtlkit.sharing import find_sharing

    tasks = {id: TaskChoice(id) for id in ("seg", "cls", "bbox")}
    segnet = Choice("segnet", {"width": 4})
    model = build_model(tasks, segnet, Shapes().spec, image_size=(32, 32), views="shared")
    shared = sum(p.numel() for p in find_sharing(model).shared)
    costs = measured(tmp_path, "--balancers", "mgda,cagrad")["balancers"]
    extra = {n: costs[n]["peak_bytes"] - costs["equal"]["peak_bytes"] for n in ("mgda", "cagrad")}
    assert all(bytes >= 4 * shared for bytes in extra.values())
    assert extra["mgda"] == pytest.approx(extra["cagrad"], rel=0.1)


def test_the_chosen_balancer_is_measured_with_its_own_options(tmp_path: Path) -> None:
    tree = measured(tmp_path, "--balancers", "mgda", "--balancer", "cagrad", "--balancer.c", "0.7")
    assert list(tree["balancers"]) == ["equal", "cagrad", "mgda"]
    assert tree["config"]["balancer"]["c"] == 0.7
    weights = ["--balancer.weights", "{seg: 1, cls: 2, bbox: 3}"]  # which have no default
    tree = measured(tmp_path, "--balancers", "equal", "--balancer", "fixed", *weights)
    assert list(tree["balancers"]) == ["equal", "fixed"]


def test_the_file_says_what_was_measured_on_what(tmp_path: Path) -> None:
    tree = measured(tmp_path, "--balancers", "uncertainty", "--rounds", "3")
    assert tree["command"].startswith("mtlkit bench --backbone segnet --backbone.width 4")
    assert tree["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"cpus", "device", "platform", "python", "threads", "commit"} <= set(tree)
    cost = tree["balancers"]["uncertainty"]
    pairs = zip(cost["seconds"], cost["baseline_seconds"], strict=True)
    assert cost["ratio"] == sorted(a / b for a, b in pairs)[1]
    assert cost["milliseconds"] == pytest.approx(1000 * sorted(cost["seconds"])[1])


def test_by_default_all_that_can_be_used_are_measured(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *SMALL, "--gradients", "features"]) == 0
    lines = capsys.readouterr().out.splitlines()
    left_out = {line.split(":")[0].removeprefix("left out ") for line in lines if "left" in line}
    assert {"fixed", "graddrop"} <= left_out
    assert "left out fixed: balancer 'fixed' needs --balancer.weights; name it with --balancer " \
        "fixed" in lines  # fmt: skip
    start = next(i for i, line in enumerate(lines) if line.startswith("equal"))
    shown = {line.split()[0] for line in lines[start:]}
    assert {"equal", "mgda", "dwa"} <= shown
    assert not shown & left_out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--balancers cagrd", "unknown balancer 'cagrd'; did you mean 'cagrad'?"),
        ("--rounds 0", "--rounds expects a whole number above 0, but got '0'"),
        ("--balancers", "--balancers expects a value, but none was given"),
        ("--output", "--output expects a value, but none was given"),
        ("--epoch 3", "unrecognized arguments: --epoch 3; did you mean --epochs?"),
        ("--print-config", "--print-config is for mtlkit train alone"),
        ("--num-processes 2", "--num-processes is for mtlkit train alone"),
        ("--output nowhere/x.json", "cannot write nowhere/x.json: there is no folder nowhere"),
        (
            "--balancers fixed",
            "balancer 'fixed' needs --balancer.weights; name it with --balancer fixed",
        ),
        (
            "--balancers graddrop --gradients features",
            "GradDrop works on single parameters' gradients; use --gradients parameters",
        ),
    ],
)
def test_a_mistake_is_one_line(capsys: Output, options: str, message: str) -> None:
    assert main(["bench", *SMALL, *options.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"mtlkit bench: error: {message}"


def test_a_wrong_name_fails_before_torch_is_imported() -> None:
    code = (
        "import sys; from mtlkit.cli import main\n"
        "assert main(['bench', '--balancers', 'x']) == 2 and main(['bench', '--help']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:49]) == (
        0,
        "mtlkit bench: error: unknown balancer 'x'\n  availa"[:49],
    )
    assert "--balancers NAMES" in done.stdout
