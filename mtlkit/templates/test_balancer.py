"""The balancer decides as it says, keeps mtlkit's contracts, and trains."""

from pathlib import Path

import torch

import mtlkit
from mtlkit import testing


def test_a_loss_three_times_as_large_gets_a_third_of_the_weight() -> None:
    balancer = mtlkit.create("balancer", "my-plugin", ("a", "b"))
    stats = mtlkit.StepStats(losses=torch.tensor([1.0, 3.0]))
    assert balancer.weights(stats).tolist() == [1.5, 0.5]


def test_it_keeps_the_contracts_of_a_balancer() -> None:
    testing.check_balancer("my-plugin")


def test_a_run_uses_it(tmp_path: Path) -> None:
    results = mtlkit.fit(
        tasks="seg,cls",
        balancer="my-plugin",
        data={"name": "shapes", "train": 16, "val": 8, "test": 8},
        image_size=32,
        batch_size=8,
        max_steps=2,
        workers=0,
        output=str(tmp_path / "run"),
    )
    assert results["status"] == "ok"
