"""What ``config.json`` of a saved model says: every key is checked before anything is built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from mtlkit import options, registry
from mtlkit.data import DatasetSpec, Kind, Quantity, is_showable
from mtlkit.errors import CheckpointError, shown
from mtlkit.limits import LARGEST_IMAGE
from mtlkit.model import Views
from mtlkit.settings import Choice, TaskChoice
from mtlkit.source import MOST_TASKS, Given, is_id

LONGEST_NAME = 200
"""Characters of a component's name."""
MOST = 2**53
"""No count is larger."""

KEYS = ("mtlkit", "tasks", "backbone", "views", "image_size", "data", "plugins")
_TARGET_KEYS = ("kind", "classes", "channels", "ignore_index", "labelled", "quantity")
_WORDS = {dict: "a mapping", list: "a list", str: "text", int: "a whole number"}


@dataclass(frozen=True)
class Saved:
    """A model without its weights."""

    tasks: dict[str, TaskChoice]
    backbone: Choice
    spec: DatasetSpec
    image_size: tuple[int, int]
    views: Views


def read_saved(tree: Mapping[str, Any]) -> Saved:
    """What a configuration says; its components are imported, but none is built.

    Args:
        tree: the content of ``config.json``.

    Raises:
        CheckpointError: a key is missing or unknown, or its value is none that mtlkit writes; the
            message names the key.
        ConfigError: a component is not installed.
    """
    _only(tree, "", KEYS)
    return Saved(
        tasks=_tasks(_get(tree, "", "tasks", dict)),
        backbone=_choice("backbone", "backbone", _get(tree, "", "backbone", dict)),
        spec=_spec(_get(tree, "", "data", dict)),
        image_size=_image_size(_get(tree, "", "image_size", list)),
        views=cast(Views, _one_of("views", _get(tree, "", "views", str), get_args(Views))),
    )


def writers(tree: Mapping[str, Any]) -> str:
    """Which distributions wrote the model, for messages, if it says so at all."""
    names = tree.get("plugins")
    if not isinstance(names, dict) or not names:
        return ""
    return f" (it was written with {', '.join(f'{n} {v}' for n, v in names.items())})"


def _tasks(tree: Mapping[str, Any]) -> dict[str, TaskChoice]:
    if not 0 < len(tree) <= MOST_TASKS:
        raise CheckpointError(f"tasks must be 1 to {MOST_TASKS}, but are {len(tree)}")
    if strange := [id for id in tree if not is_id(id)]:
        raise CheckpointError(f"tasks has the id {shown(strange[0])}, which no task can have")
    return {id: _task(f"tasks.{id}", _get(tree, "tasks.", id, dict)) for id in tree}


def _task(where: str, tree: Mapping[str, Any]) -> TaskChoice:
    _only(tree, f"{where}.", ("name", "options", "head"))
    task = _choice("task", where, {key: tree[key] for key in tree if key != "head"})
    head = tree.get("head")
    if head is not None:
        head = _choice("head", f"{where}.head", _get(tree, f"{where}.", "head", dict))
    return TaskChoice(task.name, task.options, head)


def _choice(kind: str, where: str, tree: Mapping[str, Any]) -> Choice:
    """A component of this kind, its options in the types that it declares."""
    _only(tree, f"{where}.", ("name", "options"))
    name = _get(tree, f"{where}.", "name", str)
    if len(name) > LONGEST_NAME:
        raise CheckpointError(f"{where}.name is longer than {LONGEST_NAME} characters")
    cls = registry.load().find(kind, name).load()
    given = _get(tree, f"{where}.", "options", dict)
    _only(given, f"{where}.options.", list(options.option_types(cls)))
    if missing := sorted(options.required(cls) - given.keys()):
        raise CheckpointError(f"{where}.options lacks {missing[0]}")
    read = {option: Given(value, "") for option, value in given.items()}
    return Choice(name, options.typed(cls, read, lambda option: f"{where}.options.{option}"))


def _image_size(sides: Sequence[Any]) -> tuple[int, int]:
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise CheckpointError(f"image_size must be a height and a width, but is {shown(sides)}")
    if sides[0] * sides[1] > LARGEST_IMAGE:
        raise CheckpointError(
            f"image_size must be of at most {LARGEST_IMAGE} pixels, but is {shown(sides)}"
        )
    return sides[0], sides[1]


def _spec(tree: Mapping[str, Any]) -> DatasetSpec:
    _only(tree, "data.", ("targets", "sizes"))
    _counts(tree, "data.", "sizes")
    targets = _get(tree, "data.", "targets", dict)
    for name in targets:
        if not is_showable(name):
            raise CheckpointError(f"data.targets has the name {shown(name)}, which is no label's")
        _check_target(f"data.targets.{name}.", _get(targets, "data.targets.", name, dict))
    return DatasetSpec.from_json(tree)


def _check_target(where: str, tree: Mapping[str, Any]) -> None:
    _only(tree, where, _TARGET_KEYS)
    _one_of(f"{where}kind", _get(tree, where, "kind", str), get_args(Kind))
    for index, name in enumerate(_get(tree, where, "classes", list)):
        if not isinstance(name, str) or not is_showable(name):
            raise CheckpointError(f"{where}classes[{index}] is no name of a class: {shown(name)}")
    if "quantity" in tree:  # models from before there was one have plain maps
        _one_of(f"{where}quantity", _get(tree, where, "quantity", str), get_args(Quantity))
    for key in ("channels", "ignore_index"):
        _count(f"{where}{key}", _get(tree, where, key, int))
    _counts(tree, where, "labelled")


def _counts(tree: Mapping[str, Any], where: str, key: str) -> None:
    for name, number in _get(tree, where, key, dict).items():
        _count(f"{where}{key}.{name}", number)


def _count(where: str, number: Any) -> None:
    if type(number) is not int or not -MOST <= number <= MOST:
        raise CheckpointError(f"{where} must be a whole number, but is {shown(number)}")


def _get(tree: Mapping[str, Any], where: str, key: str, kind: type) -> Any:
    if key not in tree:
        raise CheckpointError(f"{where}{key} is missing")
    if type(tree[key]) is not kind:
        raise CheckpointError(f"{where}{key} must be {_WORDS[kind]}, but is {shown(tree[key])}")
    return tree[key]


def _only(tree: Mapping[str, Any], where: str, known: Sequence[str]) -> None:
    if strange := [key for key in tree if key not in known]:
        has = ", ".join(known) or "nothing"
        raise CheckpointError(f"{where}{strange[0]} is unknown; there can be {has}")


def _one_of(where: str, word: str, words: Sequence[str]) -> str:
    if word not in words:
        raise CheckpointError(f"{where} must be one of {', '.join(words)}, but is {shown(word)}")
    return word
