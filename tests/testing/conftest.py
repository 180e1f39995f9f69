import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtlkit import registry

sys.path.append(str(Path(__file__).parents[1] / "datasets"))  # for dataset_files

HOOKS = """
import mtlkit

@mtlkit.hookimpl
def mtlkit_balancers():
    return {"right": "stranger_parts:Right", "wrong": "stranger_parts:Wrong",
            "needy": "stranger_parts:Needy"}
"""
PARTS = '''
import torch
import mtlkit

class Right(mtlkit.LossBalancer):
    """All alike."""

    def weights(self, stats):
        return torch.ones_like(stats.losses)

class Wrong(Right):
    """The first task counts most."""

    def weights(self, stats):
        return 1.0 / (1 + stats.index).to(stats.losses)

class Needy(Right):
    """As it is told.

    Args:
        share: of each task.
    """

    def __init__(self, tasks, /, *, share: float):
        super().__init__(tasks)
        self.share = share
'''


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with an installed plugin ``stranger`` of three balancers."""
    site = tmp_path / "site"
    info = site / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mtlkit]\nstranger = stranger_hooks\n")
    (site / "stranger_hooks.py").write_text(HOOKS)
    (site / "stranger_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(site)
    registry.forget()
    yield site
    registry.forget()
    for name in ("stranger_hooks", "stranger_parts"):
        sys.modules.pop(name, None)
