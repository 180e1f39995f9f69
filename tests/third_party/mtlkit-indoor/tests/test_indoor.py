"""The parts keep mtlkit's contracts."""

import numpy as np
import pytest
from PIL import Image

from mtlkit import testing


@pytest.mark.parametrize("name", ["metric-depth", "metres", "cross-stitch", "unit"])
def test_the_contracts_are_kept(name):
    kinds = {"metric-depth": "task", "metres": "head", "cross-stitch": "backbone"}
    testing.check(kinds.get(name, "balancer"), name)


def test_the_contract_of_a_dataset_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        for id in ("a", "b", "c"):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f"{id}.png")
            millimetres = rng.integers(0, 9000, (40, 48), dtype=np.uint16)
            Image.fromarray(millimetres).save(tmp_path / split / f"{id}.depth.png")
        Image.fromarray(pixels[..., 0] // 128).save(tmp_path / split / "a.mask.png")
    testing.check_dataset("rooms", root=tmp_path)
