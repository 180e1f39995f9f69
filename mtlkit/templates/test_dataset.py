"""The dataset has what it says, keeps mtlkit's contracts, and can be trained on."""

from pathlib import Path

import mtlkit
from mtlkit import testing


def test_the_class_is_the_brightest_channel() -> None:
    samples = mtlkit.create("dataset", "my-plugin").split("val")
    for index in range(len(samples)):
        sample = samples[index]
        assert sample["cls"] == sample["image"].float().mean((1, 2)).argmax()


def test_it_keeps_the_contracts_of_a_dataset() -> None:
    testing.check_dataset("my-plugin")


def test_a_run_uses_it(tmp_path: Path) -> None:
    results = mtlkit.fit(
        tasks="cls",
        data={"name": "my-plugin", "train": 24},
        batch_size=8,
        max_steps=2,
        workers=0,
        output=str(tmp_path / "run"),
    )
    assert results["status"] == "ok"
