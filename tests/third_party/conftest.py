"""Fresh environments to install strangers' packages into, and photographs of rooms."""

import os
import subprocess
import venv
from pathlib import Path
from sysconfig import get_path

import numpy as np
import pytest
from environments import Environment, MakeEnvironment
from PIL import Image

collect_ignore = ["mtlkit-indoor"]  # it is tested where it is installed


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory: pytest.TempPathFactory) -> MakeEnvironment:
    def make() -> Environment:
        home = tmp_path_factory.mktemp("environment")
        venv.create(home)
        python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        line = f"import site; site.addsitedir({get_path('purelib')!r})\n"
        (Path(site.stdout.strip()) / "outer.pth").write_text(line)
        return Environment(python)

    return make


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small rooms: what is near is bright; not all have a mask or a depth map."""
    root = tmp_path_factory.mktemp("rooms")
    rng = np.random.default_rng(0)
    for split, number in {"train": 16, "val": 6, "test": 6}.items():
        (root / split).mkdir()
        for index in range(number):
            file = root / split / f"{index:02d}.png"
            metres = np.linspace(2, 6, 40)[:, None].repeat(48, axis=1)
            mask = np.zeros(metres.shape, dtype=np.uint8)
            x, y = rng.integers(0, 24, 2)
            mask[y : y + 12, x : x + 16] = 1
            metres[mask == 1] = 1
            pixels = (255 / metres[..., None] * rng.uniform(0.8, 1, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(file)
            if index % 4 != 1:
                millimetres = (1000 * metres).astype(np.uint16)
                Image.fromarray(millimetres).save(file.with_suffix(".depth.png"))
            if index % 4 != 2:
                Image.fromarray(mask).save(file.with_suffix(".mask.png"))
    return root
