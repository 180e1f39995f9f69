"""The head keeps mtlkit's contracts, and trains."""

from pathlib import Path

import torch

import mtlkit
from mtlkit import testing


def test_it_predicts_at_the_size_of_the_images() -> None:
    spec = mtlkit.FeatureSpec(channels=(4, 8), strides=(2, 4))
    head = mtlkit.create("head", "my-plugin", spec, 5)
    features = mtlkit.Features((torch.zeros(2, 4, 16, 8), torch.zeros(2, 8, 8, 4)))
    assert head(features, (32, 16)).shape == (2, 5, 32, 16)


def test_it_keeps_the_contracts_of_a_head() -> None:
    testing.check_head("my-plugin")


def test_a_run_uses_it(tmp_path: Path) -> None:
    results = mtlkit.fit(
        tasks={"seg": {"head": "my-plugin"}, "cls": {}},
        data={"name": "shapes", "train": 16, "val": 8, "test": 8},
        image_size=32,
        batch_size=8,
        max_steps=2,
        workers=0,
        output=str(tmp_path / "run"),
    )
    assert results["status"] == "ok"
