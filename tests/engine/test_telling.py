"""What a run shows while it trains, what its parts cost, and what trackers get."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mtlkit import api, config
from mtlkit.cli import main
from mtlkit.session import Run
from mtlkit.sharing import find_sharing
from mtlkit.summary import summarise, table
from mtlkit.telling import evaluation

SMALL = [
    "--backbone", "segnet", "--backbone.width", "2", "--image-size", "32", "--batch-size", "4",
    "--data.train", "8", "--data.val", "4", "--data.test", "4", "--workers", "0",
]  # fmt: skip


def assembled(*words: str) -> Run:
    return api.assemble(config.parse([*SMALL, *words]))


def test_parameters_and_operations_are_counted_by_part() -> None:
    run = assembled("--tasks", "seg,cls")
    parts = summarise(run.model, run.engine.sharing)
    assert sum(part.parameters for part in parts.values()) == sum(
        p.numel() for p in run.model.parameters()
    )
    linear = next(m for m in run.model.heads["cls"].modules() if isinstance(m, nn.Linear))
    assert parts["cls"].flops == 2 * linear.in_features * linear.out_features
    convolutions = 0

    def count(module: nn.Conv2d, inputs: object, output: torch.Tensor) -> None:
        nonlocal convolutions
        weights = module.weight[0].numel()
        convolutions += 2 * weights * output[0].numel()

    for module in run.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    run.model.eval()(*run.model.inputs(torch.rand(1, 3, 32, 32)))
    assert sum(parts[name].flops or 0 for name in ("shared", "seg")) == convolutions


@pytest.mark.parametrize("backbone", ["mtan", "vgg16", "timm"])
def test_every_network_is_counted_and_stays_as_it_is(backbone: str) -> None:
    words = SMALL[4:] if backbone == "timm" else ["--backbone.width", "2", *SMALL[4:]]
    line = ["--backbone", backbone, *words, "--tasks", "seg,cls,bbox,denoise", "--views", "own"]
    run = api.assemble(config.parse(line))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    parts = summarise(run.model, find_sharing(run.model))
    assert list(parts) == ["shared", "seg", "cls", "bbox", "denoise"]
    assert all(part.flops for part in parts.values())
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.device.type == "cpu"
    assert run.model.training


def test_a_network_that_needs_values_is_not_counted() -> None:
    run = assembled("--tasks", "cls")
    head = run.model.heads["cls"]
    forward = head.forward
    head.forward = lambda features, size: (
        forward(features, size)
        * float(  # type: ignore
            features.levels[-1].mean().item() > 0
        )
    )
    parts = summarise(run.model, run.engine.sharing)
    assert [part.flops for part in parts.values()] == [None, None]
    assert table(parts)[1].split() == ["shared", f"{parts['shared'].parameters:,}", "-"]


def test_an_evaluation_is_a_table_with_a_line_for_every_task() -> None:
    run = assembled("--tasks", "seg,cls,bbox", "--epochs", "3")
    run.progress.step, run.progress.epoch = 4, 1
    values = {
        "loss": 1.25, "seg/loss": 0.5, "seg/miou": 0.25, "seg/weighted_iou": 0.5, "seg/f1": 1.0,
        "seg/pixel_accuracy": 0.75, "cls/loss": 0.7, "cls/accuracy": float("nan"),
        "bbox/loss": 0.05, "bbox/l2": 1234.5, "bbox/iou": 0.5,
    }  # fmt: skip
    assert evaluation(run, values, better=True) == [
        "epoch   2/3  step      4  val loss 1.250  best so far",
        "  seg   loss 0.500  miou 0.250  weighted_iou 0.500  f1 1.000  pixel_accuracy 0.750",
        "  cls   loss 0.700  accuracy -",
        "  bbox  loss 0.050  l2 1234     iou 0.500",
    ]
    assert evaluation(run, {}, better=True) == [
        "epoch   2/3  step      4  no val split: the last model is the best"
    ]


def test_tensorboard_gets_every_number_and_the_gallery(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    words = ["--tasks", "seg,cls", "--epochs", "1", "--log-every", "1"]
    line = [*SMALL, *words, "--log-with", "tensorboard", "--output", str(run)]
    assert main(["train", *line]) == 0
    events = EventAccumulator(str(run / "mtlkit")).Reload()
    assert events.Tags()["images"] == ["gallery"]
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    for split, key in (("train", "seg/loss"), ("val", "seg/miou")):
        expected = [line[key] for line in lines if line["split"] == split]
        found = [event.value for event in events.Scalars(f"{split}/{key}")]
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "unknown tracker 'tensorbord' in --log-with; did you mean 'tensorboard'?"),
        ("clearml", "the tracker 'clearml' in --log-with is not installed; pip install clearml"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*SMALL, "--tasks", "cls", "--log-with", name, "--output", str(tmp_path / "run")]
    assert main(["train", *line]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
