"""The backbone keeps mtlkit's contracts, and trains."""

from pathlib import Path

import torch

import mtlkit
from mtlkit import testing


def test_each_level_has_half_the_size_and_twice_the_channels_of_the_one_before() -> None:
    backbone = mtlkit.create("backbone", "my-plugin", ("a", "b"), width=4)
    levels = backbone.encode(torch.zeros(2, 3, 64, 32)).levels
    assert [tuple(level.shape[1:]) for level in levels] == [
        (4, 32, 16), (8, 16, 8), (16, 8, 4), (32, 4, 2), (64, 2, 1)
    ]  # fmt: skip


def test_it_keeps_the_contracts_of_a_backbone() -> None:
    testing.check_backbone("my-plugin")


def test_a_run_uses_it(tmp_path: Path) -> None:
    results = mtlkit.fit(
        tasks="seg,cls",
        backbone={"name": "my-plugin", "width": 4},
        data={"name": "shapes", "train": 16, "val": 8, "test": 8},
        image_size=64,
        batch_size=8,
        max_steps=2,
        workers=0,
        output=str(tmp_path / "run"),
    )
    assert results["status"] == "ok"
