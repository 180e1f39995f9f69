"""Limits: which values of the general options make sense."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from mtlkit.errors import ConfigError, did_you_mean
from mtlkit.settings import Settings

_AT_LEAST = {
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
            raise ConfigError(f"{label(option)} must be {rule}, but is {getattr(settings, option)}")

    for option, least in _AT_LEAST.items():
        value: Any = getattr(settings, option)
        fits = value is None or (value >= least and math.isfinite(value))
        require(option, fits, f"at least {least}")
    require("lr", 0 < settings.lr < math.inf, "above 0")
    require("warmup", 0 <= settings.warmup < 1, "in [0, 1)")
    require("smooth", 0 <= settings.smooth < 1, "in [0, 1)")
    require("timeout", 0 < settings.timeout < math.inf, "above 0")
    try:
        settings.save_cadence()
    except ValueError:
        require("save_every", False, "a number of steps, or a time such as 90s, 10min or 2h")
    size = settings.image_size
    fits = size is None or bool(re.fullmatch(r"0*[1-9]\d*(x0*[1-9]\d*)?", str(size)))
    require("image_size", fits, "a side or HEIGHTxWIDTH in pixels, such as 128 or 96x128")
    if settings.monitor is not None and settings.monitor != "loss":
        task, slash, metric = settings.monitor.partition("/")
        near = did_you_mean(task, tasks) if slash else ""
        fits = bool(slash and metric and task in tasks)
        known = ", ".join(tasks)
        require("monitor", fits, f"loss, or TASK/METRIC of a trained task ({known}){near}")
