"""Data with little or nothing to learn from trains without a crash, and poisons nothing."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

import mtlkit
import mtlkit.train
from mtlkit import api, config
from mtlkit.data import Dataset, DatasetSpec, Sample, TargetSpec

SIDE = 32
Labels = Callable[[int], dict[str, Any]]


def mask(value: int) -> tv_tensors.Mask:
    return tv_tensors.Mask(torch.full((SIDE, SIDE), value, dtype=torch.uint8))


def box(*edges: float) -> tv_tensors.BoundingBoxes:
    made: tv_tensors.BoundingBoxes = tv_tensors.BoundingBoxes(
        torch.tensor([edges]), format="XYXY", canvas_size=(SIDE, SIDE)
    )
    return made


class Odd(Dataset):
    """Pictures with the labels that are asked for; all black if ``black``."""

    def __init__(self, labels: Labels, number: int = 8, *, black: bool = False) -> None:
        self.labels, self.black = labels, black
        self.spec = DatasetSpec(
            {
                "seg": TargetSpec("mask", ("ground", "thing")),
                "cls": TargetSpec("class", ("cat", "dog")),
                "bbox": TargetSpec("box"),
            },
            {"train": number, "val": 4, "test": 4},
        )

    def split(self, name: str, /) -> "OddSamples":
        return OddSamples(self, self.spec.sizes[name])


class OddSamples:
    def __init__(self, data: Odd, number: int) -> None:
        self.data, self.number = data, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int, /) -> Sample:
        random = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, SIDE, SIDE), generator=random, dtype=torch.uint8)
        shown = torch.zeros_like(image) if self.data.black else image
        return {"image": tv_tensors.Image(shown), "id": str(index), **self.data.labels(index)}


ODD: Mapping[str, Odd] = {
    "one class": Odd(lambda i: {"seg": mask(1), "cls": torch.tensor(1), "bbox": box(0, 0, 32, 32)}),
    "empty masks": Odd(lambda i: {"seg": mask(0), "cls": torch.tensor(i % 2)}),
    "all pixels ignored": Odd(lambda i: {"seg": mask(255), "cls": torch.tensor(i % 2)}),
    "no label at all": Odd(lambda i: {}),
    "a label in one sample": Odd(lambda i: {"cls": torch.tensor(0)} if i == 3 else {}),
    "boxes of no size": Odd(lambda i: {"bbox": box(5, 5, 5, 5), "cls": torch.tensor(0)}),
    "black pictures": Odd(lambda i: {"seg": mask(i % 2), "bbox": box(0, 0, 9, 9)}, black=True),
    "one sample": Odd(lambda i: {"seg": mask(i % 2), "cls": torch.tensor(0)}, number=1),
}


def trained(data: Dataset, output: Path, *words: str) -> dict[str, Any]:
    """What a short run of all six tasks leaves."""
    line = [
        "--tasks", "seg,cls,bbox,denoise,edge,colourise", "--views", "own", "--image-size",
        str(SIDE), "--batch-size", "4", "--epochs", "2", "--workers", "0", "--log-every", "1",
        "--output", str(output), *words,
    ]  # fmt: skip
    if "--backbone" not in words:
        line += ["--backbone", "segnet", "--backbone.width", "2"]
    run = api.assemble(config.parse(line), data)
    api.start(run)
    results = mtlkit.train.train(run)
    for parameter in run.model.state_dict().values():
        assert bool(torch.isfinite(parameter).all())
    for line_ in run.folder.history():
        assert all(v is None or math.isfinite(v) for v in line_.values() if not isinstance(v, str))
    return results


@pytest.mark.parametrize("name", ODD)
def test_odd_data_trains(name: str, tmp_path: Path) -> None:
    results = trained(ODD[name], tmp_path / "run")
    assert results["status"] == "ok"
    assert math.isfinite(results["test"]["denoise/loss"])


@pytest.mark.parametrize("balancer", ["uncertainty", "geometric", "famo", "gradnorm", "nash"])
def test_labels_in_one_sample_alone_do_not_upset_a_balancer(balancer: str, tmp_path: Path) -> None:
    trained(ODD["a label in one sample"], tmp_path / "run", "--balancer", balancer)


HEADS = ["--tasks.seg.head", "deeplabv3"]


@pytest.mark.parametrize("words", [[], HEADS, ["--backbone", "timm"]])
def test_a_batch_of_one_trains_where_batch_normalisation_sees_one_value(
    words: list[str], tmp_path: Path
) -> None:
    data = Odd(lambda i: {"seg": mask(i % 2), "cls": torch.tensor(i % 2)}, number=3)
    line = ["--batch-size", "1", "--tasks", "seg,cls", *words]
    results = trained(data, tmp_path / "run", *line)
    assert results["steps"] == 6
    mtlkit.load(tmp_path / "run")


def test_one_value_is_normalised_by_the_running_statistics() -> None:
    from mtlkit.model import take_single_values

    norm = torch.nn.BatchNorm2d(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2, 3]))  # type: ignore[union-attr]
    take_single_values(norm)
    single = torch.ones(1, 3, 1, 1)
    expected = torch.nn.functional.batch_norm(single, norm.running_mean, norm.running_var)
    assert torch.equal(norm(single), expected)
    assert torch.equal(norm.running_mean, torch.tensor([1.0, 2, 3]))  # type: ignore[arg-type]
    assert norm.training
    norm(torch.randn(2, 3, 4, 4))
    assert not torch.equal(norm.running_mean, torch.tensor([1.0, 2, 3]))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["equal", "mgda"])
def test_a_process_may_lack_a_task_altogether(balancer: str, tmp_path: Path) -> None:
    """Two processes: the labels of a class, and boxes, are in the first half of the pictures."""
    root, random = tmp_path / "data", np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    rows = ["id,cls,split"]
    for number in range(16):
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number:02d}.png")
        split = "train" if number < 8 else "val"
        rows.append(f"{number:02d},{ {1: 0, 9: 1}.get(number, '') },{split}")
        if number % 3 == 0:
            half = np.tile(np.arange(SIDE) > 9, (SIDE, 1)).astype(np.uint8)
            Image.fromarray(half).save(root / "masks" / f"{number:02d}.png")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, "-m", "mtlkit", "train", "--num-processes", "2"]
    command += ["--data", "folder", "--data.root", str(root), "--tasks", "seg,cls"]
    command += ["--backbone", "segnet", "--backbone.width", "2", "--image-size", "32"]
    command += ["--batch-size", "2", "--epochs", "2", "--workers", "0", "--log-every", "1"]
    command += ["--balancer", balancer, "--output", str(tmp_path / "run")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["cls/loss"] for line in lines if line["split"] == "train"]
    assert len(losses) == 4
    assert sum(loss is not None for loss in losses) == 2  # once in each epoch
