"""``mtlkit bench``: the options of train, and those in :func:`mtlkit.help.bench`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtlkit import config, help, registry, source
from mtlkit.commands.flags import TRAIN_FLAGS, check_flags, own_plugins_only, split, whole_number
from mtlkit.errors import ConfigError
from mtlkit.source import BARE

_BENCH_VALUES = ("balancers", "output", "rounds")
_ALONE = ("predict", "alone")
"""What is compared with networks for one task each."""


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    asked_for_help, options, own = split(argv, (*TRAIN_FLAGS, *_ALONE, *_BENCH_VALUES))
    for flag in TRAIN_FLAGS:
        if flag in own and flag != "no_plugins":
            raise ConfigError(f"--{source.spell(flag)} is for mtlkit train alone")
    check_flags({key: own[key] for key in (*TRAIN_FLAGS, *_ALONE) if key in own})
    with own_plugins_only("no_plugins" in own):
        if asked_for_help:
            print(help.bench())
            return 0
        _bench(options, own, " ".join(["mtlkit bench", *argv]))
    return 0


def _bench(options: Sequence[str], own: dict[str, Any], command: str) -> None:
    for key in ("balancers", "output"):
        if own.get(key) is BARE:
            raise ConfigError(f"--{key} expects a value, but none was given")
    rounds = whole_number("rounds", own.get("rounds", "5"))
    given = [key for key in (*_ALONE, "balancers") if key in own]
    if len(given) > 1:
        raise ConfigError(f"--{given[0]} and --{given[1]} are measured one at a time")
    names = own["balancers"].split(",") if "balancers" in own else None
    for name in names or ():
        registry.load().find("balancer", name)
    asked = config.parse(options)
    from mtlkit import bench as measure  # after the configuration was read, because of torch

    output = Path(own["output"]) if "output" in own else None
    if given and names is None:
        predict = "predict" in own
        measure.bench_alone(asked, predict=predict, rounds=rounds, output=output, command=command)
    else:
        measure.bench(asked, names, rounds=rounds, output=output, command=command)
