"""Experiment trackers that Accelerate knows: which there are, and pictures for those that can."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from numpy.typing import NDArray

from mtlkit.errors import ConfigError, did_you_mean


def check(names: Sequence[str]) -> None:
    """Refuse a tracker that Accelerate would leave out without a word.

    Raises:
        ConfigError: it is unknown, or its package is not installed.
    """
    known = [str(kind.value) for kind in LoggerType if kind is not LoggerType.ALL]
    there = {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"unknown tracker '{name}' in --log-with{did_you_mean(name, known)} "
                f"Available: {', '.join(known)}"
            )
        if name not in there:
            raise ConfigError(
                f"the tracker '{name}' in --log-with is not installed; pip install {name}"
            )


def log_pictures(
    accelerator: Accelerator, pictures: Mapping[str, NDArray[np.uint8]], step: int
) -> None:
    """Send pictures ``[H, W, 3]`` to every tracker that takes some."""
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            options: dict[str, Any] = {}
            if tracker.name == "tensorboard":  # it would take the first dimension for channels
                options["dataformats"] = "NHWC"
            batches = {name: picture[None] for name, picture in pictures.items()}
            tracker.log_images(batches, step=step, **options)
