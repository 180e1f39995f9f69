"""Recipe: a run's configuration as what differs from the defaults, and the command to repeat it."""

import ast
import json
import shlex
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, NamedTuple

from mtlkit import registry
from mtlkit.config import DEFAULTS, SLOTS
from mtlkit.describe import describe
from mtlkit.errors import MtlkitError
from mtlkit.report.read import Read
from mtlkit.settings import Settings
from mtlkit.source import spell

WHERE = ("output", "resume")
"""Options that are about where a run is, not what it is."""
UNKNOWN = object()


class Changed(NamedTuple):
    """An option that is not at its default."""

    key: str
    value: Any
    default: Any
    """``UNKNOWN`` if it has none, or its component is not installed."""


def differences(run: Read) -> list[Changed]:
    """Every option that differs from what ``mtlkit train`` would do without it."""
    config = run.config
    found = _tasks(run)
    for slot, kind in SLOTS.items():
        found += _component(slot, kind, config[slot], DEFAULTS[slot])
    settings = {field.name: field.default for field in fields(Settings)}
    rest = {key: config[key] for key in config if key in settings and key not in WHERE}
    for key, value in rest.items():
        if not _same(value, settings[key]):
            found.append(Changed(key, value, settings[key]))
    return found


def command(run: Read) -> str:
    """What repeats the run, to be given to a shell."""
    words = ["mtlkit", "train"]
    if run.env.get("processes", 1) > 1:
        words += ["--num-processes", str(run.env["processes"])]
    for key, value, _ in differences(run):
        words += [f"--{spell(key)}", _text(value)]
    return shlex.join(words)


def _tasks(run: Read) -> list[Changed]:
    tasks = run.config["tasks"]
    named = ",".join(id if id == task["name"] else f"{id}={task['name']}"
                     for id, task in tasks.items())  # fmt: skip
    found = [] if named == DEFAULTS["tasks"] else [Changed("tasks", named, DEFAULTS["tasks"])]
    about = run.about.get("tasks", {})
    for id, task in tasks.items():
        options = {key: value for key, value in task.items() if key != "head"}
        found += _component(f"tasks.{id}", "task", options, task["name"])
        if "head" in task:
            usual = about.get(id, {}).get("default_head")
            found += _component(f"tasks.{id}.head", "head", task["head"], usual)
    return found


def _component(slot: str, kind: str, chosen: Mapping[str, Any], usual: str | None) -> list[Changed]:
    found = []
    if chosen["name"] != usual:
        found.append(Changed(slot, chosen["name"], UNKNOWN if usual is None else usual))
    defaults = _defaults(kind, chosen["name"])
    for option, value in chosen.items():
        default = defaults.get(option, UNKNOWN)
        if option != "name" and not _same(value, default):
            found.append(Changed(f"{slot}.{option}", value, default))
    return found


@lru_cache
def _defaults(kind: str, name: str) -> dict[str, Any]:
    """Of a component's options, read from its source; without those that it does not tell."""
    try:
        options = describe(registry.load().find(kind, name)).options
    except MtlkitError:
        return {}
    found = {}
    for option in options:
        try:
            found[option.name] = ast.literal_eval(option.default or "")
        except (ValueError, SyntaxError):
            continue
    return found


def _same(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        default = list(default)
    return bool(value == default)


def _text(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, Mapping) or (isinstance(value, list) and not _plain(value)):
        return json.dumps(value)
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _plain(values: list[Any]) -> bool:
    return all(isinstance(value, str | int | float) for value in values)
