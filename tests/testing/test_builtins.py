"""mtlkit's own components pass the checks that everyone's pass."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from dataset_files import (
    make_camvid,
    make_cityscapes,
    make_folder,
    make_h5,
    make_nyuv2,
    make_pets,
)

from mtlkit import registry
from mtlkit.testing import check

OPTIONS: dict[str, dict[str, Any]] = {
    "backbone/mtan": {"width": 4},
    "backbone/segnet": {"width": 4},
    "backbone/vgg16": {"width": 4},
    "balancer/fixed": {"weights": {"one": 0.7, "two": 0.1, "three": 0.2}},
    "balancer/torchjd": {"method": "DualProj"},
    "head/deeplabv3": {"channels": 8},
    "head/deeplabv3plus": {"channels": 8},
    "head/dense": {"decoder": "fpn"},
    "head/dpt": {"level_channels": (4, 6, 8, 8), "channels": 8},
    "head/fpn": {"pyramid_channels": 8, "channels": 32},
    "head/linknet": {"channels": 8},
    "head/manet": {"channels": (16, 12, 8, 8, 4), "attention_channels": 4},
    "head/pan": {"channels": 8},
    "head/pspnet": {"channels": 8},
    "head/segformer": {"channels": 8},
    "head/unet": {"channels": (16, 12, 8, 8, 4)},
    "head/unetplusplus": {"channels": (16, 12, 8, 8, 4)},
    "head/upernet": {"channels": 8},
}
"""Options that a component needs, or that make it small."""

FILES: dict[str, Callable[[Path], Path]] = {
    "dataset/camvid": make_camvid,
    "dataset/cityscapes": make_cityscapes,
    "dataset/folder": make_folder,
    "dataset/h5": make_h5,
    "dataset/nyuv2": make_nyuv2,
    "dataset/oxford-pets": make_pets,
}
"""What makes the files that a dataset reads."""

PACKAGES = {"balancer/torchjd": ("torchjd", "qpsolvers", "quadprog")}
"""What a component needs that mtlkit does without."""

OWN = sorted(
    f"{c.kind}/{c.name}" for c in registry.load().components() if c.distribution == "mtlkit"
)


@pytest.mark.parametrize("word", OWN)
def test_a_component_of_mtlkit_passes_every_check(word: str, tmp_path: Path) -> None:
    if not all(map(find_spec, PACKAGES.get(word, ()))):
        pytest.skip(f"needs {', '.join(PACKAGES[word])}")
    kind, _, name = word.partition("/")
    root = {"root": FILES[word](tmp_path)} if word in FILES else {}
    check(kind, name, **OPTIONS.get(word, {}), **root)


def test_the_tables_name_registered_components() -> None:
    assert {*OPTIONS, *FILES, *PACKAGES} <= set(OWN)
