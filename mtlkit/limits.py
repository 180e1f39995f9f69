"""Limits: which values of the general options make sense."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from mtlkit.errors import ConfigError, did_you_mean, shown
from mtlkit.settings import Settings

LARGEST_IMAGE = 2**26
"""Pixels of the images that a network sees: 8192 x 8192."""

_LEAST = {
    "epochs": 1,
    "max_steps": 0,
    "batch_size": 1,
    "weight_decay": 0,
    "accumulate": 1,
    "balance_every": 1,
    "conflict_every": 0,
    "clip": 0,
    "workers": 0,
    "seed": 0,
    "patience": 0,
    "log_every": 1,
    "overfit": 0,
    "keep": 1,
}
_MOST = 2**53
"""No count is larger, and no float is exact above it."""


def check(settings: Settings, tasks: Sequence[str], label: Callable[[str], str]) -> None:
    """Refuse values that no run can have.

    Args:
        settings: of the run.
        tasks: ids of its tasks.
        label: how to call an option in a message.

    Raises:
        ConfigError: a value is out of its range.
    """

    def require(option: str, holds: bool, rule: str) -> None:
        if not holds:
            value = getattr(settings, option)
            got = shown(value).strip("'") if isinstance(value, str) else shown(value)
            raise ConfigError(f"{label(option)} must be {rule}, but is {got}")

    for option, least in _LEAST.items():
        value: Any = getattr(settings, option)
        require(option, value is None or value >= least, f"at least {least}")
        require(option, value is None or value <= _MOST, f"at most {_MOST}")
    require("lr", settings.lr > 0, "above 0")
    require("lr", settings.lr <= _MOST, f"at most {_MOST}")
    require("warmup", 0 <= settings.warmup < 1, "in [0, 1)")
    require("smooth", 0 <= settings.smooth < 1, "in [0, 1)")
    require("timeout", 0 < settings.timeout <= _MOST, "above 0")
    try:
        settings.save_cadence()
    except ValueError:
        require("save_every", False, "a number of steps, or a time such as 90s, 10min or 2h")
    sides = [] if settings.image_size is None else str(settings.image_size).split("x")
    fits = len(sides) < 3 and all(re.fullmatch("0*[1-9][0-9]{0,8}", side) for side in sides)
    require("image_size", fits, "a side or HEIGHTxWIDTH in pixels, such as 128 or 96x128")
    fits = not sides or int(sides[0]) * int(sides[-1]) <= LARGEST_IMAGE
    require("image_size", fits, f"of at most {LARGEST_IMAGE} pixels")
    if settings.monitor is not None and settings.monitor != "loss":
        task, slash, metric = settings.monitor.partition("/")
        near = did_you_mean(task, tasks) if slash else ""
        fits = bool(slash and metric and task in tasks)
        known = ", ".join(tasks)
        require("monitor", fits, f"loss, or TASK/METRIC of a trained task ({known}){near}")
