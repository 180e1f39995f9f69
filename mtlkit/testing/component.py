"""Checks of every component, whatever its kind: how it is built and what its user may set."""

import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

import yaml

from mtlkit import options
from mtlkit.config import plain
from mtlkit.describe import parse_docstring
from mtlkit.errors import ConfigError, did_you_mean
from mtlkit.plugin import one_line
from mtlkit.source import COMMAND_LINE, PYTHON, Given, label, spell, tokens
from mtlkit.testing.conformance import Checks, Fault, Subject, base_class, expect

CHECKS = Checks()

RESERVED = ("name", "head")


@CHECKS.add(
    why="mtlkit builds a component with what its base class says, positionally, and its options.",
    mend="Subclass the kind's base class, write all its abstract methods, take what the framework "
    "gives before a `/` and pass it on to super().__init__; give required options to the check.",
)
def _it_can_be_built(subject: Subject) -> None:
    base = base_class(subject.kind)
    expect(issubclass(subject.cls, base), f"it is no subclass of mtlkit.{base.__name__}")
    subject.build()


@CHECKS.add(
    why="Options are set by name, on the command line and in files; help, types and misspelt names "
    "come from the signature and the docstring.",
    mend="Write def __init__(self, <given>, /, *, option: type = default), and a line for each "
    "option under `Args:` in the class's docstring.",
)
def _options_are_set_by_name_and_have_types_and_help(subject: Subject) -> None:
    parameters = inspect.signature(subject.cls).parameters.values()
    loose = [p.name for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    expect(not loose, f"the constructor takes whatever it is given: *{', *'.join(loose)}")
    both = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    expect(not both, f"neither positional-only nor keyword-only: {', '.join(both)}")
    own = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    untyped = [p.name for p in own if p.annotation is p.empty]
    expect(not untyped, f"without a type: {', '.join(untyped)}")
    get_type_hints(subject.cls.__init__)  # type: ignore[misc]
    helps = _helps(subject.cls)
    undocumented = [p.name for p in own if not helps.get(p.name)]
    expect(not undocumented, f"not documented under Args: {', '.join(undocumented)}")
    reserved = [p.name for p in own if p.name in RESERVED]
    expect(not reserved, f"mtlkit keeps this name for itself: {', '.join(reserved)}")


@CHECKS.add(
    why="`mtlkit list` and `mtlkit show` print it.",
    mend="Begin the class's docstring with one sentence that says what it does.",
)
def _the_docstring_begins_with_a_sentence(subject: Subject) -> None:
    text = subject.cls.__doc__ or ""
    summary = parse_docstring(text)[0].summary
    expect(bool(summary), "the class has no docstring")
    expect(summary.endswith("."), f"the first line is no sentence: {summary!r}")


@CHECKS.add(
    why="A run writes all options into its config.yaml; resuming and predicting read them back.",
    mend="Give every option a default of its declared type; use numbers, text, true or false, "
    "paths, lists and mappings of these.",
)
def _options_come_back_from_a_configuration_file(subject: Subject) -> None:
    written = plain(_typed(subject, dict(subject.options)))
    try:
        text = yaml.safe_dump(written)
    except yaml.YAMLError as error:
        raise Fault(f"they cannot be written to a file: {one_line(error)}") from error
    read = _typed(subject, yaml.safe_load(text))
    again = plain(read)
    changed = [f"{name} from {written[name]!r} to {again[name]!r}"
               for name in written if written[name] != again[name]]  # fmt: skip
    expect(not changed, f"a configuration file changes {', '.join(changed)}")
    subject.build(**read)


@CHECKS.add(
    why="A waiver that names no check waives nothing.",
    mend="Name the check as `mtlkit check` prints it, and give the reason: {name: reason}.",
)
def _what_it_waives_are_checks(subject: Subject) -> None:
    from mtlkit.testing.conformance import checks

    known = [check.name for check in checks(subject.kind)]
    unknown = [name for name in getattr(subject.cls, "waives", {}) if name not in known]
    expect(not unknown, f"no check is called '{', '.join(unknown)}'")


def required(cls: type) -> str:
    """The options without a default, as on a command line."""
    return " ".join(f"--{spell(name)}" for name in sorted(options.required(cls)))


def read_options(cls: type, words: Sequence[str]) -> dict[str, Any]:
    """A component's options from a command line.

    Raises:
        ConfigError: there is no such option, its value has another type, or one is missing.
    """
    given = {name: Given(value, COMMAND_LINE) for name, value in tokens(words)}
    known = options.option_types(cls)
    for name in given:
        if name not in known:
            near = did_you_mean(spell(name), map(spell, known))
            raise ConfigError(f"unrecognized arguments: --{spell(name)}{near}")
    if options.required(cls) - given.keys():
        raise ConfigError(f"{cls.__name__} needs {required(cls)}")
    values = options.typed(cls, given, lambda name: label(name, COMMAND_LINE))
    return {name: values[name] for name in given}


def _typed(subject: Subject, values: dict[str, Any]) -> dict[str, Any]:
    given = {name: Given(value, PYTHON) for name, value in values.items()}
    try:
        return options.typed(subject.cls, given, lambda name: f"option {name}")
    except ConfigError as error:
        raise Fault(str(error)) from error


def _helps(cls: type) -> dict[str, str]:
    """Help by option; what a base class documents need not be said again."""
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        helps |= parse_docstring(base.__doc__ or "")[1]
    return helps
