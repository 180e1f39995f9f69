"""A run that takes a second or two, for tests of what is done with runs."""

from pathlib import Path
from typing import Any

import mtlkit

OPTIONS: dict[str, Any] = {
    "tasks": "seg,cls,bbox",
    "backbone": {"name": "segnet", "width": 4},
    "data": {"name": "shapes", "size": 32, "train": 16, "val": 4, "test": 4},
    "image_size": 32,
    "batch_size": 4,
    "max_steps": 6,
    "workers": 0,
}


def small_run(folder: Path, **options: Any) -> Path:
    """The folder of a run with these options instead of the usual ones."""
    mtlkit.fit(**{**OPTIONS, **options}, output=str(folder))
    return folder
