"""Options of a component: from text and plain values to the types its constructor declares."""

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from mtlkit.errors import ConfigError
from mtlkit.source import BARE, Given

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
    from jsonargparse import ArgumentError, ArgumentParser  # late: listing names needs none of it

    hints = option_types(cls)
    values = {name: _prepare(item.value, hints[name], label(name)) for name, item in given.items()}
    parser = ArgumentParser(exit_on_error=False)
    positional = {name for name in _parameters(cls) if name not in hints}
    parser.add_class_arguments(cls, None, skip=positional, fail_untyped=False)
    try:
        parsed = parser.parse_object(values)
    except ArgumentError as error:
        culprit = re.search(r'Parser key "([^"]+)"', str(error))
        if culprit is None or culprit[1] not in values:
            raise ConfigError(" ".join(str(error).split())) from None
        name = culprit[1]
        raise _mismatch(label(name), hints[name], given[name].value) from None
    return {name: _settle(parsed[name], hint) for name, hint in hints.items()}


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def _prepare(value: Any, hint: Any, name: str) -> Any:
    """What the parser takes for ``value``: comma lists and a=1,b=2 opened, bare flags true."""
    members = _members(hint)
    if (value is BARE and bool not in members) or (value is None and not _takes_none(members)):
        raise _mismatch(name, hint, value)
    if value is BARE:
        return True
    if isinstance(value, Path) and Path not in members:
        return str(value)
    if not isinstance(value, str) or str in members or value[:1] in ("[", "{"):
        return value
    container = next((m for m in members if get_origin(m) or m in (list, tuple, dict)), None)
    if container is None or get_origin(container) is Literal:
        return value
    if issubclass(get_origin(container) or container, Mapping):
        return _read_pairs(value, container, _mismatch(name, hint, value))
    alone = len([m for m in members if m is not type(None)]) == 1
    if issubclass(get_origin(container) or container, Sequence) and (alone or "," in value):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


def _read_pairs(text: str, container: Any, error: ConfigError) -> dict[str, Any]:
    """``a=1,b=2`` as a mapping."""
    pairs = [word.partition("=") for word in text.split(",") if word.strip()]
    if not all(equals and key.strip() for key, equals, _ in pairs):
        raise error
    is_text = get_args(container)[1:] == (str,)
    return {k.strip(): v if is_text else yaml.safe_load(v) for k, _, v in pairs}


def _settle(value: Any, hint: Any) -> Any:
    """One Python type per declared type: a Sequence is a tuple, whichever way it came."""
    origins = [get_origin(m) for m in _members(hint)]
    if isinstance(value, list) and list not in (*origins, *_members(hint)):
        return tuple(value)
    return value


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _takes_none(members: tuple[Any, ...]) -> bool:
    return type(None) in members or Any in members


def _mismatch(name: str, hint: Any, value: Any) -> ConfigError:
    got = "no value was given" if value is BARE else f"got {value!r}"
    choices = [str(a) for m in _members(hint) if get_origin(m) is Literal for a in get_args(m)]
    near = get_close_matches(str(value), choices, n=1)
    hint_text = f"; did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"{name} expects {describe_type(hint)}, but {got}{hint_text}")


def describe_type(hint: Any) -> str:
    """A type in a user's words."""
    members = [m for m in _members(hint) if m is not type(None)]
    return " or ".join(map(_describe, members))


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
