"""Conformance: the checks of a kind, one by one, on one component.

Nothing heavy is imported before a component is.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from mtlkit import registry
from mtlkit.errors import ConfigError, did_you_mean
from mtlkit.plugin import one_line
from mtlkit.registry import KINDS, Component

TASKS = ("one", "two", "three")
"""Ids of the tasks in the checks."""

Run = Callable[["Subject"], None]


class Fault(Exception):
    """What is wrong with the component, in its own numbers."""


class NotApplicable(Exception):
    """Why a check has nothing to say about this component."""


class ConformanceError(AssertionError):
    """A component fails checks; the text has each, why it matters and how to mend it."""


@dataclass(frozen=True)
class Check:
    """One thing that holds for every component of a kind.

    Args:
        name: a sentence.
        run: raises :class:`Fault` when it does not hold.
        why: it matters.
        mend: what the component's author can do.
    """

    name: str
    run: Run
    why: str
    mend: str


class Checks(list[Check]):
    """The checks of one kind, in the order in which they are run."""

    def add(self, *, why: str, mend: str) -> Callable[[Run], Run]:
        """Add the decorated function; its name, as a sentence, is the check's."""

        def added(run: Run) -> Run:
            self.append(Check(run.__name__.strip("_").replace("_", " "), run, why, mend))
            return run

        return added


def expect(holds: bool, fault: str) -> None:
    """Raise a :class:`Fault` unless something holds."""
    if not holds:
        raise Fault(fault)


@dataclass(frozen=True)
class Subject:
    """The component under test.

    Args:
        kind: of it.
        name: registered, or of its class.
        cls: its class.
        options: its own.
    """

    kind: str
    name: str
    cls: type
    options: Mapping[str, Any]

    def build(self, *given: Any, **options: Any) -> Any:
        """A new one.

        Args:
            given: what the framework gives, instead of the usual.
            options: instead of those of the subject with the same names.
        """
        given = given or _home(self.kind).given(self)
        chosen = {**self.options, **options}
        return self.cls(*given, **{k: _for_tasks(v, given) for k, v in chosen.items()})


def _for_tasks(value: Any, given: tuple[Any, ...]) -> Any:
    """An option by task, for the given tasks alone."""
    by_task = isinstance(value, Mapping) and set(value) == set(TASKS)
    if by_task and given and isinstance(given[0], tuple):
        return {task: value[task] for task in given[0]}
    return value


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Args:
        check: that was run.
        status: ``waived`` by the component's class.
        text: the fault, or the reason not to look.
    """

    check: Check
    status: Literal["ok", "failed", "waived", "not applicable"]
    text: str = ""

    def __str__(self) -> str:
        if self.status != "failed":
            return f"{self.check.name}: {self.text}" if self.text else self.check.name
        lines = [self.check.name, f"  what: {self.text}"]
        return "\n".join([*lines, f"  why:  {self.check.why}", f"  mend: {self.check.mend}"])


def checks(kind: str) -> list[Check]:
    """All checks of a kind: those of every component, then its own."""
    return [*_home("component").CHECKS, *_home(kind).CHECKS]


def base_class(kind: str) -> type:
    """What every component of a kind is derived from."""
    base: type = _home(kind).BASE
    return base


def unchecked(subject: Subject, missing: str) -> Check:
    """In place of all checks of a component that cannot be built without options."""
    text = f"it needs {missing}; call mtlkit.testing.check_{subject.kind}() with them in a test"

    def run(subject: Subject) -> None:
        raise NotApplicable(text)

    return Check("it is checked", run, why="", mend="")


def _home(kind: str) -> Any:
    return import_module(f"mtlkit.testing.{kind}")


def subject(kind: str, component: str | type, options: Mapping[str, Any]) -> Subject:
    """What to check.

    Args:
        kind: one of ``KINDS``.
        component: its registered name or its class.
        options: its own.

    Raises:
        ConfigError: there is no such component, or it cannot be loaded.
    """
    if isinstance(component, str):
        name, cls = component, registry.load().find(kind, component).load()
    else:
        name, cls = component.__name__, component
    return Subject(kind, name, cls, options)


def run(check: Check, subject: Subject) -> Outcome:
    """Run one check, with random numbers of its own."""
    import torch

    waived = getattr(subject.cls, "waives", {}).get(check.name)
    if waived is not None:
        return Outcome(check, "waived", waived)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            check.run(subject)
    except NotApplicable as error:
        return Outcome(check, "not applicable", str(error))
    except Fault as error:
        return Outcome(check, "failed", str(error))
    except Exception as error:
        return Outcome(check, "failed", one_line(error) + _place(error))
    return Outcome(check, "ok")


def outcomes(subject: Subject) -> Iterator[Outcome]:
    """Run all checks; when the component cannot be built, only that one."""
    for number, check in enumerate(checks(subject.kind)):
        outcome = run(check, subject)
        yield outcome
        if number == 0 and outcome.status == "failed":
            return


def check(kind: str, component: str | type, **options: Any) -> None:
    """Run all checks of a kind.

    Args:
        kind: task, head, backbone, balancer or dataset.
        component: its registered name or its class.
        options: its own.

    Raises:
        ConformanceError: checks failed.
        ConfigError: there is no such component.
    """
    found = subject(kind, component, options)
    done = list(outcomes(found))
    failed = [outcome for outcome in done if outcome.status == "failed"]
    if failed:
        title = f"{kind} '{found.name}' fails {len(failed)} of {len(done)} checks"
        raise ConformanceError("\n\n".join([title, *map(str, failed)]))


def check_backbone(component: str | type, **options: Any) -> None:
    """:func:`check` a backbone."""
    check("backbone", component, **options)


def check_head(component: str | type, **options: Any) -> None:
    """:func:`check` a head."""
    check("head", component, **options)


def check_task(component: str | type, **options: Any) -> None:
    """:func:`check` a task."""
    check("task", component, **options)


def check_balancer(component: str | type, **options: Any) -> None:
    """:func:`check` a balancer."""
    check("balancer", component, **options)


def check_dataset(component: str | type, **options: Any) -> None:
    """:func:`check` a dataset."""
    check("dataset", component, **options)


def find(word: str, kind: str | None = None) -> list[Component]:
    """The registered components that ``word`` stands for.

    Args:
        word: the name of a component, KIND/NAME, or the name of a plugin for all that it brings.
        kind: look among these alone.

    Raises:
        ConfigError: there is none.
    """
    found = registry.load()
    first, _, name = word.partition("/")
    if name and first in KINDS:
        return [found.find(first, name)]
    kinds = KINDS if kind is None else (kind,)
    components = [c for k in kinds for c in found.components(k)]
    named = {c.kind for c in components if word in (c.name, c.qualified)}
    if named:
        return [found.find(k, word) for k in kinds if k in named]
    of_plugin = [c for c in components if word == c.plugin]
    if not of_plugin:
        near = did_you_mean(word, {name for c in components for name in (c.name, c.plugin)})
        raise ConfigError(f"no {kind or 'component or plugin'} is called '{word}'{near}")
    return of_plugin


def _place(error: BaseException) -> str:
    """Where an exception was raised: in the component, rather than here or in what it calls."""
    outside = (str(Path(__file__).parent), "site-packages")
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(place in f.filename for place in outside)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
