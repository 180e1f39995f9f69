"""From what was written to the type that an option declares, and to nothing else.

Every value is text, a number, a truth value, None, or a list or mapping of these. No value can
name something that is then imported, opened or called.
"""

import re
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mtlkit.tree import DEEPEST, LONGEST_NUMBER

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Misfit(ValueError):
    """A value does not have the declared type."""


def members(hint: Any) -> tuple[Any, ...]:
    """The types of which a value must have one."""
    if get_origin(hint) is Annotated:
        return members(get_args(hint)[0])
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def convert(value: Any, hint: Any) -> Any:
    """``value`` in the declared type: of several, the first that it fits.

    A list becomes a tuple, unless a ``list`` is declared. A value of exactly a declared type is
    taken as it is.

    Raises:
        Misfit: it fits none.
    """
    kinds = members(hint)
    if not isinstance(value, str) and type(value) in kinds:
        return value
    for kind in kinds:
        try:
            return _convert(value, kind)
        except (Misfit, OverflowError):
            continue
    raise Misfit


def _convert(value: Any, kind: Any) -> Any:
    origin = get_origin(kind) or kind
    if origin in (Any, object):
        return _plain(value, 0)
    if origin in _SIMPLE:
        return _SIMPLE[origin](value)
    if origin is Literal:
        return _choose(value, get_args(kind))
    if not isinstance(origin, type):
        raise Misfit
    if issubclass(origin, Mapping):
        return _mapping(value, *(get_args(kind) or (Any, Any)))
    if issubclass(origin, Sequence | set | frozenset):
        return _items(value, origin, get_args(kind) or (Any, ...))
    if issubclass(origin, Enum) and isinstance(value, str) and value in origin.__members__:
        return origin[value]
    if isinstance(value, origin):
        return value
    raise Misfit


def _plain(value: Any, depth: int) -> Any:
    """Any value, with text that is a number after all: YAML reads 1e-3 as text."""
    if depth > DEEPEST:
        raise Misfit
    if isinstance(value, str):
        return float(value) if "e" in value.lower() and _is_number(value) else _text(value)
    if isinstance(value, dict):
        return {key: _plain(inner, depth + 1) for key, inner in value.items()}
    return [_plain(inner, depth + 1) for inner in value] if isinstance(value, list) else value


def _is_number(text: str) -> bool:
    return len(text) <= LONGEST_NUMBER and bool(_NUMBER.fullmatch(text))


def _whole(value: Any) -> int:
    if isinstance(value, str) and _is_number(value) and not set(value) & set(".eE"):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Misfit


def _number(value: Any) -> float:
    if isinstance(value, str) and _is_number(value):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise Misfit


def _truth(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool):
        return value
    raise Misfit


def _text(value: Any) -> str:
    value = str(value) if isinstance(value, Path) else value
    if isinstance(value, str) and "\0" not in value:
        return value
    raise Misfit


def _path(value: Any) -> Path:
    return value if isinstance(value, Path) else Path(_text(value))


def _nothing(value: Any) -> None:
    if value not in (None, "null"):
        raise Misfit


_SIMPLE: dict[Any, Callable[[Any], Any]] = {
    int: _whole,
    float: _number,
    bool: _truth,
    str: _text,
    Path: _path,
    type(None): _nothing,
}


def _choose(value: Any, words: Sequence[Any]) -> Any:
    for word in words:
        if type(value) is type(word) and value == word:
            return word
        if isinstance(value, str) and not isinstance(word, str) and value == str(word):
            return word
    raise Misfit


def _mapping(value: Any, key_hint: Any, hint: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise Misfit
    return {convert(key, key_hint): convert(inner, hint) for key, inner in value.items()}


def _items(value: Any, origin: type, hints: Sequence[Any]) -> Any:
    if not isinstance(value, list | tuple | set | frozenset):
        raise Misfit
    fixed = issubclass(origin, tuple) and hints[-1] is not ...
    if fixed and len(value) != len(hints):
        raise Misfit
    each = hints if fixed else [hints[0]] * len(value)
    items = [convert(item, hint) for item, hint in zip(value, each, strict=True)]
    return origin(items) if issubclass(origin, list | set | frozenset) else tuple(items)
