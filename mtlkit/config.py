"""Configuration of a run: from command line, files or keyword arguments, in two passes.

The first pass reads names and finds the components in the registry, so that a wrong name fails
before anything heavy is imported. The second imports just the chosen classes and reads their
options by the types of their constructors.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mtlkit import limits, options, registry, source
from mtlkit.data import Dataset
from mtlkit.errors import ConfigError, did_you_mean, shown
from mtlkit.registry import Component
from mtlkit.settings import Choice, Config, Settings, TaskChoice
from mtlkit.source import BARE, COMMAND_LINE, PYTHON, Given, Layer, is_slot, label

DEFAULTS = {
    "tasks": "seg,cls,bbox",
    "backbone": "timm",
    "balancer": "equal",
    "data": "shapes",
    "reader": "folder",
}
"""What a run is made of when its user names nothing; the reader is for a folder without a name."""

SLOTS = {"backbone": "backbone", "balancer": "balancer", "data": "dataset"}
"""Options that choose a component, and its kind; tasks and heads have their own."""

FLAGS = ("config", "dry_run", "help", "no_plugins", "num_processes", "print_config")
"""Options of ``mtlkit train`` that are no part of a configuration; known to hints."""

OBJECT = "object/"
"""What the name of data begins with that were handed over as an object; its class follows."""


@dataclass
class HandedOver(Choice):
    """Data that were handed over as an object: a file can only say that they were."""

    dataset: Dataset | None = None


def parse(argv: Sequence[str]) -> Config:
    """The configuration that a command line asks for.

    Raises:
        ConfigError: something in it is wrong; the message is for the user.
    """
    return _resolve(_resumed(source.from_tokens(source.tokens(argv))), COMMAND_LINE)


def from_mapping(given: Mapping[str, Any]) -> Config:
    """The configuration that nested or dotted options ask for.

    Args:
        given: as in a YAML file; ``config`` names one or several such files, which come first.
            ``plugins`` is what wrote it, for messages alone. ``data`` may be a dataset itself.

    Raises:
        ConfigError: something in it is wrong; the message is for the user.
    """
    files = given.get("config") or ()
    files = [files] if isinstance(files, str | Path) else files
    if not isinstance(files, list | tuple) or not all(isinstance(f, str | Path) for f in files):
        raise ConfigError(f"config expects YAML files, but got {shown(files)}")
    rest = {key: value for key, value in given.items() if key != "config"}
    data, handed_over = given.get("data"), None
    if isinstance(data, Dataset):
        handed_over = HandedOver(OBJECT + type(data).__name__, dataset=data)
        rest["data"] = handed_over.name
    elif not isinstance(data, str | Mapping | None):
        raise ConfigError(
            f"data is a {type(data).__name__}; give the name of a dataset, or a mtlkit.Dataset, "
            "which mtlkit.OwnData makes of torch Datasets and lists"
        )
    layers = [*map(source.from_file, files), source.from_mapping(rest, PYTHON)]
    return _resolve(_resumed(layers), PYTHON, handed_over)


def from_layers(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Config:
    """The configuration of several mappings, where a later one is stronger.

    Args:
        layers: each with where it is from, for messages.

    Raises:
        ConfigError: something in them is wrong; the message is for the user.
    """
    return _resolve([source.from_mapping(tree, origin) for origin, tree in layers], PYTHON)


def _resumed(layers: Sequence[Layer]) -> list[Layer]:
    """The layers of a run that goes on: first its own configuration, last where it is."""
    given = {key: item for layer in layers for key, item in layer.items()}
    resume = given.get("resume", Given(False, PYTHON))
    if resume.value in (False, "false"):
        return list(layers)
    folder = resume.value
    if folder in (BARE, True, "true"):
        if "output" not in given:
            where = label("resume", resume.origin)
            raise ConfigError(
                f"{where} needs the folder of a run, here or as {label('output', resume.origin)}"
            )
        folder = given["output"].value
    place = {"output": Given(str(folder), resume.origin), "resume": Given(True, resume.origin)}
    file = Path(str(folder)) / "config.yaml"
    if os.path.exists(file) and not os.path.isfile(file):  # a pipe would be waited for
        raise ConfigError(f"cannot read {file}: it is no file")
    return [source.from_file(file), *layers, place]


def to_mapping(config: Config) -> dict[str, Any]:
    """All options with their values, plain enough for YAML; reading it gives ``config`` again."""
    tasks = {
        id: {**_choice(task), **({"head": _choice(task.head)} if task.head else {})}
        for id, task in config.tasks.items()
    }
    slots = {slot: _choice(getattr(config, slot)) for slot in SLOTS}
    tree: dict[str, Any] = plain({"tasks": tasks, **slots, **asdict(config.settings)})
    return tree


def plugins(config: Config) -> dict[str, str]:
    """Which distributions, and of what version, bring the components of ``config``."""
    chosen = [(kind, getattr(config, slot)) for slot, kind in SLOTS.items()]
    chosen = [(kind, choice) for kind, choice in chosen if not isinstance(choice, HandedOver)]
    for task in config.tasks.values():
        chosen += [("task", task), *([("head", task.head)] if task.head else [])]
    found = [registry.load().find(kind, choice.name) for kind, choice in chosen]
    return {c.distribution: c.version for c in found}


def chosen(argv: Sequence[str]) -> dict[str, Component]:
    """The components that a command line names, by slot, for its ``--help``."""
    merged = _merge(source.from_tokens(source.tokens(argv)))
    names = _names(merged, _ids(merged) if "tasks" in merged else ())
    named = {slot for slot in names if slot in merged or slot.startswith("tasks.")}
    return {slot: _find(slot, names[slot]) for slot in names if slot in named}


def _resolve(layers: Sequence[Layer], origin: str, handed_over: HandedOver | None = None) -> Config:
    merged = _merge(layers)
    written = merged.pop("plugins", None)
    _check_general(merged)
    ids = _ids(merged)
    _check_ids(merged, ids)
    names = _names(merged, ids)
    if handed_over:
        del names["data"]
    try:
        classes = _load(names, ids)
    except ConfigError as error:
        raise _with_writers(error, written) from None
    _check_options(merged, names, classes)
    choices = {slot: _options(slot, names[slot], classes[slot], merged, origin) for slot in names}
    tasks = {}
    for id in ids:
        task = choices[f"tasks.{id}"]
        tasks[id] = TaskChoice(task.name, task.options, choices[f"tasks.{id}.head"])
    settings = Settings(**_typed(Settings, "", merged, origin))
    limits.check(settings, ids, lambda option: _label(option, merged, origin))
    data = handed_over or choices["data"]
    return Config(tasks, choices["backbone"], choices["balancer"], data, settings)


def _merge(layers: Sequence[Layer]) -> Layer:
    """One layer after the other; another component drops the earlier one's options."""
    merged: Layer = {}
    for layer in layers:
        if "tasks" in layer:
            ids = layer["tasks"].value
            gone = {key for key in merged if key.startswith("tasks.") and _id(key) not in ids}
            merged = {key: merged[key] for key in merged if key not in gone}
        for slot in filter(is_slot, layer):
            if slot in merged or _kind(slot) == "task":
                before = merged[slot].value if slot in merged else _id(slot)
                if before != layer[slot].value:
                    merged = {k: v for k, v in merged.items() if not k.startswith(slot + ".")}
        merged.update(layer)
    return merged


def _ids(merged: Layer) -> tuple[str, ...]:
    default = source.from_mapping({"tasks": DEFAULTS["tasks"]}, PYTHON)["tasks"]
    ids: tuple[str, ...] = merged.get("tasks", default).value
    return ids


def _id(key: str) -> str:
    return key.split(".")[1]


def _kind(slot: str) -> str:
    return SLOTS.get(slot) or ("head" if slot.count(".") == 2 else "task")


def _names(merged: Layer, ids: Sequence[str]) -> dict[str, str]:
    """The name in every slot; a head that is not named is missing."""
    default = {**{slot: DEFAULTS[slot] for slot in SLOTS}, **{f"tasks.{id}": id for id in ids}}
    heads = [f"tasks.{id}.head" for id in ids if f"tasks.{id}.head" in merged]
    return {
        slot: merged[slot].value if slot in merged else default[slot] for slot in (*default, *heads)
    }


def _find(slot: str, name: str) -> Component:
    try:
        return registry.load().find(_kind(slot), name)
    except ConfigError:
        if slot != "data" or not name.startswith(OBJECT):
            raise
        raise ConfigError(
            f"the data of this run were an object of the class {name.removeprefix(OBJECT)}, which "
            "no file can build again; hand it over in Python: mtlkit.evaluate_run(run, data=...), "
            "mtlkit.fit(resume=run, data=...)"
        ) from None


def _load(names: dict[str, str], ids: Sequence[str]) -> dict[str, type]:
    """Find every component, import them, and add the tasks' default heads to ``names``."""
    found = {slot: _find(slot, name) for slot, name in names.items()}
    classes = {slot: component.load() for slot, component in found.items()}
    for id in ids:
        slot = f"tasks.{id}.head"
        if slot not in classes:
            names[slot] = getattr(classes[f"tasks.{id}"], "default_head", "")
            classes[slot] = _find(slot, names[slot]).load()
    for slot, cls in classes.items():
        for reserved in {"name", "head"} & set(options.option_types(cls)):
            raise ConfigError(
                f"{_kind(slot)} '{names[slot]}' has an option called '{reserved}', which mtlkit "
                "keeps for itself; its author must rename it"
            )
    return classes


def _with_writers(error: ConfigError, written: Given | None) -> ConfigError:
    """Add who wrote a configuration whose components cannot be found."""
    if written is None or not isinstance(written.value, Mapping):
        return error
    writers = ", ".join(f"{name} {version}" for name, version in written.value.items())
    return ConfigError(f"{error}\n  note: this configuration was written with {writers}")


def _options(slot: str, name: str, cls: type, merged: Layer, origin: str) -> Choice:
    missing = sorted(o for o in options.required(cls) if f"{slot}.{o}" not in merged)
    if missing:
        where = ", ".join(label(f"{slot}.{option}", origin) for option in missing)
        raise ConfigError(f"{_kind(slot)} '{name}' needs {where}")
    return Choice(name, _typed(cls, slot + ".", merged, origin))


def _typed(cls: type, prefix: str, merged: Layer, origin: str) -> dict[str, Any]:
    names = [name for name in options.option_types(cls) if prefix + name in merged]
    given = {name: merged[prefix + name] for name in names}
    return options.typed(cls, given, lambda name: _label(prefix + name, merged, origin))


def _label(key: str, merged: Layer, origin: str) -> str:
    return label(key, merged[key].origin if key in merged else origin)


def _check_general(merged: Layer) -> None:
    """Refuse an unknown option outside the components, before anything is imported."""
    known = {field.name for field in fields(Settings)} | set(SLOTS) | {"tasks"}
    unknown = {key: given for key, given in merged.items() if "." not in key and key not in known}
    typed = any(given.origin == COMMAND_LINE for given in unknown.values())
    _refuse(unknown, {*known, *FLAGS} if typed else known)


def _check_ids(merged: Layer, ids: Sequence[str]) -> None:
    for key, given in merged.items():
        if key.startswith("tasks.") and _id(key) not in ids:
            raise ConfigError(
                f"{label(key, given.origin)} is for a task that is not trained"
                f"{did_you_mean(_id(key), ids)} (tasks: {', '.join(ids)})"
            )


def _check_options(merged: Layer, names: Mapping[str, str], classes: Mapping[str, type]) -> None:
    """Refuse an option that the chosen component does not have."""
    own = {slot: sorted(options.option_types(cls)) for slot, cls in classes.items()}
    known = {f"{slot}.{option}" for slot, words in own.items() for option in words} | set(names)
    unknown = {k: v for k, v in merged.items() if "." in k and k not in known}
    slot = next(iter(unknown), "").rpartition(".")[0]
    has = ""
    if slot in names:
        words = ", ".join(own[slot])
        has = f"; {_kind(slot)} '{names[slot]}' has {f'the options {words}' if words else 'none'}"
    _refuse(unknown, {key for key in known if key.rpartition(".")[0] == slot}, has)


def _refuse(unknown: Layer, known: Iterable[str], otherwise: str = "") -> None:
    """Name all unknown options, with a hint for the first."""
    if not unknown:
        return
    words = []
    for key, given in unknown.items():
        shown = given.origin == COMMAND_LINE and given.value is not BARE
        words.append(label(key, given.origin) + (f" {given.value}" if shown else ""))
    key, given = next(iter(unknown.items()))
    origin = COMMAND_LINE if given.origin == COMMAND_LINE else PYTHON
    what = "arguments" if origin else "options"
    prefix = key.rpartition(".")[0]
    ends = {k.removeprefix(f"{prefix}."): k for k in known}
    near = get_close_matches(key.removeprefix(f"{prefix}."), ends, n=1)
    hint = f"; did you mean {label(ends[near[0]], origin)}?" if near else otherwise
    raise ConfigError(f"unrecognized {what}: {' '.join(words)}{hint}")


def plain(tree: Any) -> Any:
    """Paths as strings, tuples as lists: as JSON and YAML have it."""
    if isinstance(tree, Mapping):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    return str(tree) if isinstance(tree, Path) else tree


def _choice(choice: Choice) -> dict[str, Any]:
    return {"name": choice.name, **choice.options}
