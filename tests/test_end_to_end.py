"""The main job as a user meets it: train, evaluate, predict, resume, on one process and on two."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import mtlkit
from mtlkit.cli import main

SMALL = [
    "--backbone", "segnet", "--backbone.width", "4", "--image-size", "32", "--batch-size", "8",
    "--data.train", "16", "--data.val", "5", "--data.test", "7", "--workers", "0",
]  # fmt: skip


def train(*options: str) -> int:
    return main(["train", *SMALL, *options])


def results(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "all"
    tasks = "seg,cls,bbox,denoise,edge,colourise"
    assert train("--tasks", tasks, "--epochs", "2", "--views", "own", "--output", str(folder)) == 0
    return folder


def test_a_run_leaves_every_file_of_the_contract(run: Path) -> None:
    for name in (
        "config.yaml", "env.json", "metrics.jsonl", "results.json", "checkpoints/last",
        "checkpoints/best", "model/config.json", "model/model.safetensors", "plots/losses.png",
        "plots/metrics.png", "plots/weights.png", "gallery/samples.png", "gallery/samples.json",
        "about.json", "tables/val.json", "tables/test.json", "report.html", "report.md",
        "results.csv",
    ):  # fmt: skip
        assert (run / name).exists(), name
    assert not [file for file in run.rglob("*") if file.suffix in (".new", ".old", ".pkl", ".pt")]


def test_results_have_every_metric_of_every_task(run: Path) -> None:
    found = results(run)
    assert found["status"] == "ok"
    assert set(found["test"]) == set(found["val"]) == {
        "loss", "seg/miou", "seg/weighted_iou", "seg/f1", "seg/pixel_accuracy",
        "seg/loss", "cls/accuracy", "cls/loss",
        "bbox/l2", "bbox/iou", "bbox/loss", "denoise/psnr", "denoise/ssim", "denoise/loss",
        "edge/f1", "edge/loss", "colourise/psnr", "colourise/loss",
    }  # fmt: skip
    losses = [value for key, value in found["test"].items() if key.endswith("/loss")]
    assert found["test"]["loss"] == pytest.approx(sum(losses))


def test_every_line_of_metrics_says_step_epoch_and_split(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["split"] for line in lines][-1] == "test"
    assert [line["step"] for line in lines if line["split"] == "val"] == [2, 4]
    assert all({"step", "epoch", "split"} <= set(line) for line in lines)


def test_evaluate_finds_what_the_run_wrote(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--split", "test"]) == 0
    assert "seg/miou" in capsys.readouterr().out
    from mtlkit.api import evaluate_run

    again = evaluate_run(run, "test", workers=0)
    assert again == pytest.approx(results(run)["test"], rel=1e-6)


def test_the_resolved_configuration_trains_the_same_network(run: Path, tmp_path: Path) -> None:
    options = ["--config", str(run / "config.yaml"), "--output", str(tmp_path / "again")]
    assert main(["train", *options]) == 0
    assert results(tmp_path / "again")["test"] == results(run)["test"]


def test_predict_writes_answers_in_the_pictures_own_pixels(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (90, 50), "red").save(tmp_path / "wide.jpg")
    Image.new("L", (33, 70), 128).save(tmp_path / "tall.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    names = ["wide.jpg", "broken.jpg", "tall.png"]
    out = tmp_path / "out"
    files = [str(tmp_path / name) for name in names]
    assert main(["predict", str(run), *files, "--output", str(out)]) == 1
    assert "broken.jpg" in capsys.readouterr().err
    for stem, size in (("wide", (90, 50)), ("tall", (33, 70))):
        answer = json.loads((out / f"{stem}.json").read_text())
        x1, y1, x2, y2 = answer["bbox"]["box"]
        assert 0 <= x1 <= x2 <= size[0]
        assert 0 <= y1 <= y2 <= size[1]
        assert 0 <= answer["cls"]["probability"] <= 1
        for picture in ("overlay", "seg", "denoise"):
            with Image.open(out / f"{stem}.{picture}.png") as image:
                assert image.size == size


def test_a_loaded_model_predicts_the_same_alone_and_in_a_batch(run: Path) -> None:
    model = mtlkit.load(run)
    pictures = [Image.new("RGB", (40, 60), colour) for colour in ("red", "blue")]
    alone = [model.predict(picture) for picture in pictures]
    together = model.predict_batch(pictures)
    for one, other in zip(alone, together, strict=True):
        assert one["bbox"]["box"] == pytest.approx(other["bbox"]["box"], abs=1e-3)
        assert one["seg"]["mask"].shape == (60, 40)


def test_an_output_folder_in_use_is_refused_and_nothing_is_overwritten(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    assert train("--output", str(run)) == 2
    assert "is in use; choose another --output" in capsys.readouterr().err
    assert before == {file: file.stat().st_mtime_ns for file in run.rglob("*")}


def test_an_unwritable_output_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert train("--output", str(tmp_path / "file" / "run")) == 2
    assert "cannot write to the output folder" in capsys.readouterr().err


def test_weights_that_cannot_be_read_leave_no_folder_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--backbone.pretrained", str(tmp_path / "none.safetensors")]
    assert train(*options, "--output", str(tmp_path / "run")) == 2
    assert "none.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_size_that_does_not_fit_is_refused_with_sizes_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--image-size", "33x64", "--output", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert "multiples of 32" in error
    assert "32 or 64" in error
    assert not (tmp_path / "run").exists()


def test_a_monitor_that_no_task_reports_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--monitor", "seg/mio", "--output", str(tmp_path / "run")) == 2
    assert "did you mean 'seg/miou'" in capsys.readouterr().err


def test_gradients_that_conflict_are_logged_and_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--tasks", "seg,cls,bbox", "--balancer", "upgrad", "--log-every", "1"]
    assert train(*options, "--epochs", "1", "--output", str(folder)) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in (line for line in lines if line["split"] == "train"):
        assert all(line[f"{id}/gradient_norm"] > 0 for id in ("seg", "cls", "bbox"))
        for pair in ("seg+cls", "seg+bbox", "cls+bbox"):
            assert -1 <= line[f"{pair}/cosine"] <= 1
        assert line["balancer/failures"] == 0
        assert line["balancer/iterations"] >= 1
    assert (folder / "plots" / "conflicts.png").exists()


def test_conflicts_are_sampled_for_a_balancer_that_looks_at_losses(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--tasks", "seg,cls", "--log-every", "1", "--conflict-every", "2"]
    assert train(*options, "--epochs", "2", "--output", str(folder)) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    looked = ["seg+cls/cosine" in line for line in lines if line["split"] == "train"]
    assert looked == [True, False, True, False]


def test_a_dry_run_says_what_is_shared_and_what_the_heads_get(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train("--tasks", "seg,cls", "--balancer", "cagrad", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "balancer  cagrad, at the tasks' gradients on the parameters; heads raw" in out
    assert re.search(r"shared +[\d,]+ +[\d.]+\n +seg +[\d,]+ +[\d.]+\n +cls", out)


def test_the_network_cannot_be_split_over_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for variable, name in (("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed")):
        with monkeypatch.context() as patched:
            patched.setenv(f"ACCELERATE_USE_{variable}", "true")
            assert train("--output", str(tmp_path / "run")) == 2
        error = capsys.readouterr().err
        assert f"the launcher asks for {name}, which splits the network over processes" in error
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smooth", "1"], "--smooth must be in [0, 1), but is 1.0"),
        (["--balance-every", "0"], "--balance-every must be at least 1, but is 0"),
        (["--balancer", "moco", "--smooth", "0.5"], "column by column"),
        (["--balancer", "moco", "--gradients", "features"], "use --gradients parameters"),
        (
            ["--balancer", "mgda", "--gradients", "features", "--views", "own", "--tasks",
             "seg,denoise"],
            "use --gradients parameters",
        ),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*options, "--output", str(tmp_path / "run")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_there_is_nothing_to_resume_in_an_empty_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "config.yaml" in capsys.readouterr().err


def test_patience_stops_a_run_that_gets_no_better(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--tasks", "seg", "--lr", "1e-9", "--epochs", "20", "--patience", "2"]
    assert train(*options, "--output", str(folder)) == 0
    assert results(folder)["steps"] < 40


def test_training_on_few_images_fits_them(tmp_path: Path) -> None:
    options = ["--tasks", "seg", "--overfit", "4", "--batch-size", "4", "--epochs", "40"]
    folder = tmp_path / "run"
    assert train(*options, "--lr", "1e-2", "--output", str(folder)) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["seg/loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < 0.7 * losses[0]


def test_fit_does_what_the_command_line_does(tmp_path: Path) -> None:
    fitted = mtlkit.fit(
        tasks="seg,cls", data={"name": "shapes", "train": 16, "val": 5, "test": 7}, image_size=32,
        backbone={"name": "segnet", "width": 4}, batch_size=8, workers=0, max_steps=2,
        output=str(tmp_path / "a"),
    )  # fmt: skip
    assert train("--tasks", "seg,cls", "--max-steps", "2", "--output", str(tmp_path / "b")) == 0
    assert fitted["test"] == results(tmp_path / "b")["test"]


@pytest.mark.parametrize("precision", ["bf16"])
def test_half_precision_trains(precision: str, tmp_path: Path) -> None:
    options = ["--precision", precision, "--max-steps", "2", "--output", str(tmp_path / "run")]
    assert train(*options) == 0
    assert results(tmp_path / "run")["test"]["seg/loss"] > 0


def test_fp16_is_refused_where_it_does_not_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU here, which knows fp16")
    assert train("--precision", "fp16", "--output", str(tmp_path / "run")) == 2
    assert "fp16 needs a GPU" in capsys.readouterr().err


TWO = [
    "--tasks", "seg,cls,bbox", "--backbone.norm", "none", "--max-steps", "5", "--epochs", "5",
    "--optimizer", "sgd", "--lr", "0.01", "--clip", "1",
]  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_like_one_with_the_same_global_batch(tmp_path: Path) -> None:
    assert train(*TWO, "--output", str(tmp_path / "one")) == 0
    small = [*SMALL, *TWO, "--batch-size", "4"]
    command = [sys.executable, "-m", "mtlkit", "train", "--num-processes", "2", *small]
    subprocess.run([*command, "--output", str(tmp_path / "two")], check=True, timeout=300)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "-m", "mtlkit.train", *small]
    subprocess.run(
        [*launch, "--output", str(tmp_path / "launched")],
        check=True, timeout=300, env={**os.environ, "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    one, two, launched = (
        load_file(tmp_path / name / "checkpoints" / "last" / "state.safetensors")
        for name in ("one", "two", "launched")
    )
    for name in one:
        if name.startswith("/model"):
            torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)
            assert torch.equal(two[name], launched[name])
    tests = [results(tmp_path / name)["test"] for name in ("one", "two")]
    assert tests[1] == pytest.approx(tests[0], rel=1e-3)
    assert yaml.safe_load((tmp_path / "two" / "config.yaml").read_text())["batch_size"] == 4
    assert json.loads((tmp_path / "two" / "env.json").read_text())["processes"] == 2
