"""Options as users write them: command line, YAML files and Python mappings, in one flat form.

A layer maps keys to values. A key is a path: ``lr``, ``balancer``, ``balancer.c``, ``tasks``,
``tasks.seg``, ``tasks.seg.loss``, ``tasks.seg.head``, ``tasks.seg.head.dropout``. The value of a
slot (a place for a component) is the component's name, and that of ``tasks`` the tuple of ids.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlkit.errors import ConfigError, shown
from mtlkit.tree import LARGEST, Unreadable, read_tree

MOST_TASKS = 100
COMMAND_LINE = "--"
PYTHON = ""
BARE = object()
"""The value of an option that was named without one, as in ``--compile``."""

_SLOT = re.compile(r"backbone|balancer|data|tasks\.[^.]+(\.head)?")
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Given:
    """A value and where it was written.

    Args:
        value: as written, or BARE.
        origin: COMMAND_LINE, PYTHON or the name of a file.
    """

    value: Any
    origin: str


Layer = dict[str, Given]


def label(key: str, origin: str) -> str:
    """An option as its user wrote it, for messages."""
    if origin == COMMAND_LINE:
        return "--" + spell(key)
    return f"{key} in {origin}" if origin else key


def spell(key: str) -> str:
    """A key with dashes, as on the command line; a task's id stays as it is."""
    parts = key.split(".")
    ids = {1} if parts[0] == "tasks" else set()
    return ".".join(p if i in ids else p.replace("_", "-") for i, p in enumerate(parts))


def canonical(word: str) -> str:
    """The inverse of :func:`spell`."""
    parts = word.split(".")
    ids = {1} if parts[0] == "tasks" else set()
    return ".".join(p if i in ids else p.replace("-", "_") for i, p in enumerate(parts))


def is_slot(key: str) -> bool:
    """Whether the value of ``key`` is the name of a component."""
    return bool(_SLOT.fullmatch(key))


def is_id(word: str) -> bool:
    """Whether a task may be called so: its id becomes a part of file names."""
    return bool(_ID.fullmatch(word))


def tokens(argv: Sequence[str]) -> list[tuple[str, Any]]:
    """``--key value``, ``--key=value`` and ``--key`` (BARE) as pairs, in order.

    Raises:
        ConfigError: a word belongs to no option.
    """
    pairs: list[tuple[str, Any]] = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            pairs.append((canonical(key), value if equals else BARE))
        elif pairs and pairs[-1][1] is BARE:
            pairs[-1] = pairs[-1][0], word
        else:
            raise ConfigError(f"unrecognized arguments: {word}; options begin with --")
    return pairs


def from_tokens(pairs: Sequence[tuple[str, Any]]) -> list[Layer]:
    """The layers of a command line: its ``--config`` files in order, then the rest."""
    files = [value for key, value in pairs if key == "config"]
    if BARE in files:
        raise ConfigError("--config expects a YAML file, but none was given")
    rest = {key: value for key, value in pairs if key != "config"}
    return [*map(from_file, files), from_mapping(rest, COMMAND_LINE)]


def from_file(file: str | Path) -> Layer:
    """The layer of a YAML file.

    Raises:
        ConfigError: it cannot be read or is no mapping.
    """
    return from_mapping(read(file), str(file))


def read(file: str | Path) -> Mapping[Any, Any]:
    """What a YAML file says; ``no``, dates and ``1e-3`` are text.

    Raises:
        ConfigError: it cannot be read or is no mapping.
    """
    try:
        with open(file, "rb") as handle:
            tree = read_tree(handle.read(LARGEST + 1))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except Unreadable as error:
        where = f"{file}, line {error.line}" if error.line else f"cannot read {file}"
        raise ConfigError(f"{where}: {error}") from None
    except ValueError:  # from open
        raise ConfigError(f"cannot read {file}: that is no name of a file") from None
    if not isinstance(tree, Mapping | None):
        raise ConfigError(f"{file} must be a mapping of options, but is a {_kind(tree)}")
    return tree or {}


def from_mapping(tree: Mapping[str, Any], origin: str) -> Layer:
    """The layer of nested or dotted options.

    Raises:
        ConfigError: a key is not text, or ``tasks`` is malformed.
    """
    layer: Layer = {}
    for key, value in tree.items():
        if not isinstance(key, str):
            raise ConfigError(f"option names are text, but {origin or 'one'} has {shown(key)}")
        key = canonical(key)
        if key == "tasks":
            layer.update(_read_tasks(value, origin))
        else:
            layer.update(_flatten(key, value, origin))
    return layer


def _flatten(key: str, value: Any, origin: str) -> Iterator[tuple[str, Given]]:
    if not is_slot(key):
        yield key, Given(value, origin)
    elif isinstance(value, Mapping):
        for option, inner in value.items():
            if option == "name":
                yield key, Given(_component(key, inner, origin), origin)
            else:
                yield from _flatten(f"{key}.{canonical(str(option))}", inner, origin)
    else:
        yield key, Given(_component(key, value, origin), origin)


def _component(key: str, value: Any, origin: str) -> str:
    if isinstance(value, str) and value:
        return value
    got = "none was given" if value is BARE else f"got {shown(value)}"
    raise ConfigError(f"{label(key, origin)} expects the name of a component, but {got}")


def _read_tasks(value: Any, origin: str) -> Layer:
    where = label("tasks", origin)
    entries = list(_entries(value, where))
    ids = [id for id, _ in entries]
    if not ids:
        raise ConfigError(f"{where} names no task")
    if len(ids) > MOST_TASKS:
        raise ConfigError(f"{where} names {len(ids)} tasks; {MOST_TASKS} are the most")
    for id in ids:
        if not is_id(id):
            raise ConfigError(
                f"{where}: invalid task id {shown(id)}; use up to 64 letters, digits, _ and -, "
                "starting with a letter, and ID=NAME for another name"
            )
        if ids.count(id) > 1:
            raise ConfigError(f"{where}: task id '{id}' is given twice; try {id},{id}2={id}")
    layer = {"tasks": Given(tuple(ids), origin)}
    for id, body in entries:
        if body is not None:
            layer.update(_flatten(f"tasks.{id}", body, origin))
    return layer


def _entries(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Pairs of a task's id and its type's name, its options, or None."""
    if isinstance(value, Mapping):
        yield from ((str(id), body) for id, body in value.items())
        return
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(w, str) for w in words):
        got = "none was given" if value is BARE else f"got {shown(value)}"
        raise ConfigError(f"{where} expects names such as seg,cls or species=cls, but {got}")
    for word in filter(None, (word.strip() for word in words)):
        id, equals, name = word.partition("=")
        yield id, name if equals else None


def _kind(tree: Any) -> str:
    return "list" if isinstance(tree, list) else "single value"
