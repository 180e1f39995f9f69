"""``mtlkit train``: all options are described by :mod:`mtlkit.help`."""

from collections.abc import Sequence
from typing import Any

import yaml

from mtlkit import config, help, registry
from mtlkit.commands.flags import TRAIN_FLAGS, check_flags, own_plugins_only, split


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    asked_for_help, options, own = split(argv, TRAIN_FLAGS)
    check_flags(own)
    with own_plugins_only("no_plugins" in own):
        if asked_for_help:
            print(help.train(registry.load(), config.chosen(options)))
            return 0
        return _train(options, own)


def _train(options: Sequence[str], own: dict[str, Any]) -> int:
    asked = config.parse(options)
    if "print_config" in own:
        print(yaml.safe_dump(config.to_mapping(asked), sort_keys=False), end="")
        return 0
    from mtlkit import api, launch  # after the configuration was read, because it imports torch

    if "dry_run" in own:
        api.dry_run(asked)
        return 0
    if int(own.get("num_processes", 1)) > 1:
        return launch.launch(options, int(own["num_processes"]))
    launch.check_world()
    api.run_config(asked)
    return 0
