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


def check_networks(networks: dict[str, Any]) -> None:
    """One network for three tasks next to one for each, and the sum of those."""
    names = ["seg alone", "cls alone", "bbox alone"]
    assert list(networks) == ["together", *names, "sum of these"]
    whole, total, parts = (
        networks["together"],
        networks["sum of these"],
        [networks[n] for n in names],
    )
    turns = zip(*(part["seconds"] for part in parts), strict=True)
    assert total["seconds"] == pytest.approx([sum(turn) for turn in turns])
    assert total["parameters"] == sum(part["parameters"] for part in parts)
    assert max(p["parameters"] for p in parts) < whole["parameters"] < total["parameters"]
    assert all(part["peak_bytes"] > 4 * part["parameters"] for part in (whole, *parts))
    assert whole["images_per_second"] == pytest.approx(4000 / whole["milliseconds"])


def test_predictions_together_are_compared_with_networks_for_one_task(
    tmp_path: Path, capsys: Output
) -> None:
    networks = measured(tmp_path, "--predict", "--rounds", "2", "--channels-last")["networks"]
    check_networks(networks)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "time", "x", "together", "memory", "x", "together", "images/s", "parameters"
    ]  # fmt: skip
    assert lines[1].split()[-1] == f"{networks['together']['parameters']:,}"


def test_steps_together_are_compared_with_networks_for_one_task(tmp_path: Path) -> None:
    chosen = "--balancer cagrad --gradients features --monitor seg/miou --conflict-every 2"
    tree = measured(tmp_path, "--alone", *chosen.split())
    check_networks(tree["networks"])
    assert tree["config"]["balancer"]["name"] == "cagrad"
    # weights, two moments of AdamW and the gradient
    assert all(n["peak_bytes"] > 15 * n["parameters"] for n in list(tree["networks"].values())[:4])


def test_what_networks_for_one_task_cost_is_measured_without_what_only_several_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mtlkit import bench

    seen = {}

    def noting(runs: Any, **options: Any) -> Any:
        seen.update(runs)
        return compare(runs, **options)

    compare = bench.compare_networks
    monkeypatch.setattr(bench, "compare_networks", noting)
    measured(tmp_path, "--alone", "--balancer", "mgda", "--balance-every", "2", "--heads", "raw")
    balancers = {name: run.config["balancer"]["name"] for name, run in seen.items()}
    assert balancers.pop("together") == "mgda"
    assert set(balancers.values()) == {"equal"}
    assert {run.settings.heads for name, run in seen.items() if "alone" in name} == {None}
    assert len({id(run.dataset) for run in seen.values()}) == 1
    assert all(run.settings.batch_size == 4 for run in seen.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--balancers cagrd", "unknown balancer 'cagrd'; did you mean 'cagrad'?"),
        ("--predict 3", "--predict takes no value, but got '3'"),
        ("--predict --alone", "--predict and --alone are measured one at a time"),
        ("--alone --balancers mgda", "--alone and --balancers are measured one at a time"),
        ("--predict --tasks seg", "there is one task alone; name several by --tasks A,B,..."),
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
