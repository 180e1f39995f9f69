"""Options of a component: from text and plain values to the types its constructor declares."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mtlkit.convert import Misfit, convert, members
from mtlkit.errors import ConfigError, shown
from mtlkit.source import BARE, Given
from mtlkit.tree import Unreadable, read_tree

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
}


def option_types(cls: type) -> dict[str, Any]:
    """What a user may set, the keyword-only parameters, and the type of each."""
    names = [name for name, p in _parameters(cls).items() if p.kind is p.KEYWORD_ONLY]
    try:
        hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    except NameError:
        hints = {}
    return {name: hints.get(name, Any) for name in names}


def required(cls: type) -> set[str]:
    """The options without a default."""
    parameters = _parameters(cls)
    return {
        name for name in option_types(cls) if parameters[name].default is inspect.Parameter.empty
    }


def typed(cls: type, given: Mapping[str, Given], label: Callable[[str], str]) -> dict[str, Any]:
    """Every option of ``cls``: what was given, in its declared type, and the defaults.

    Args:
        cls: the component.
        given: by option; all of them are options of ``cls``, and all required ones are there.
        label: how to call an option in a message.

    Raises:
        ConfigError: a value does not have the declared type.
    """
    hints = option_types(cls)
    defaults = {name: p.default for name, p in _parameters(cls).items() if name in hints}
    values = {}
    for name, hint in hints.items():
        if name not in given:
            values[name] = _settle(defaults[name], hint)
            continue
        try:
            values[name] = convert(_opened(given[name].value, hint), hint)
        except (Misfit, Unreadable):
            raise _mismatch(label(name), hint, given[name].value) from None
    return values


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def _opened(value: Any, hint: Any) -> Any:
    """A bare flag as true, and comma lists, a=1,b=2, [1, 2] and {a: 1} as what they stand for.

    Raises:
        Misfit: the flag needs a value, or a pair is none.
        Unreadable: text that begins like a list or a mapping is none.
    """
    if value is BARE:
        if bool in members(hint):
            return True
        raise Misfit
    if not isinstance(value, str) or str in members(hint):
        return value
    kinds = [get_origin(m) or m for m in members(hint) if m is not type(None)]
    container = next((k for k in kinds if isinstance(k, type) and issubclass(k, _CONTAINERS)), None)
    if container is None:
        return read_tree(value) if Any in kinds or object in kinds else value
    if value[:1] in ("[", "{"):
        return read_tree(value)
    if issubclass(container, Mapping):
        return _read_pairs(value, hint)
    if len(kinds) == 1 or "," in value:
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


_CONTAINERS = (Sequence, Mapping, set, frozenset)


def _read_pairs(text: str, hint: Any) -> dict[str, Any]:
    """``a=1,b=2`` as a mapping."""
    pairs = [word.partition("=") for word in text.split(",") if word.strip()]
    if not all(equals and key.strip() for key, equals, _ in pairs):
        raise Misfit
    is_text = any(get_args(member)[1:] == (str,) for member in members(hint))
    return {key.strip(): v if is_text else read_tree(v) for key, _, v in pairs}


def _settle(default: Any, hint: Any) -> Any:
    """One Python type per declared type: a Sequence is a tuple, by default too."""
    origins = [get_origin(member) or member for member in members(hint)]
    return tuple(default) if isinstance(default, list) and list not in origins else default


def _mismatch(name: str, hint: Any, value: Any) -> ConfigError:
    got = "no value was given" if value is BARE else f"got {shown(value)}"
    choices = [str(a) for m in members(hint) if get_origin(m) is Literal for a in get_args(m)]
    near = get_close_matches(str(value), choices, n=1)
    hint_text = f"; did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"{name} expects {describe_type(hint)}, but {got}{hint_text}")


def describe_type(hint: Any) -> str:
    """A type in a user's words."""
    return " or ".join(_describe(m) for m in members(hint) if m is not type(None))


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping such as a=1,b=2"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list of {_PLURALS.get(args[0], 'values')}, with commas" if args else "a list"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


_PLURALS = {int: "whole numbers", float: "numbers", str: "words"}
