"""The task learns what it says, keeps mtlkit's contracts, and trains."""

from pathlib import Path

import torch

import mtlkit
from mtlkit import testing


def test_the_loss_is_the_squared_error_of_labelled_images_and_their_number() -> None:
    task = mtlkit.create("task", "my-plugin", "colour", mtlkit.DatasetSpec({}), (32, 32))
    target = task.make_target(torch.full((2, 3, 32, 32), 0.5))
    prediction = torch.tensor([[0.5, 0.5, 0.8], [9.0, 9.0, 9.0]])
    total, count = task.loss(prediction, target, torch.tensor([True, False]))
    torch.testing.assert_close(total, torch.tensor(0.03))
    assert count == 1


def test_it_keeps_the_contracts_of_a_task() -> None:
    testing.check_task("my-plugin")


def test_a_run_uses_it(tmp_path: Path) -> None:
    results = mtlkit.fit(
        tasks="cls,my-plugin",
        data={"name": "shapes", "train": 16, "val": 8, "test": 8},
        image_size=32,
        batch_size=8,
        max_steps=2,
        workers=0,
        output=str(tmp_path / "run"),
    )
    assert results["test"]["my-plugin/error"] >= 0
