"""Plugins: found through entry points, loaded and called one by one, none able to break another."""

import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from types import ModuleType
from typing import Any

import pluggy

from mtlkit import hookspecs
from mtlkit.errors import did_you_mean

GROUP = "mtlkit"
OWN = "mtlkit"
"""The distribution whose names nobody can take."""

log = logging.getLogger("mtlkit")


@dataclass(frozen=True)
class Plugin:
    """A module that an installed distribution registers.

    Args:
        name: of its entry point, with the distribution in front when two plugins share it.
        distribution: that brings it.
        version: of the distribution.
    """

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin '{self.name}' ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Problem:
    """Something wrong with a plugin; mtlkit goes on without that part."""

    plugin: Plugin
    text: str

    def __str__(self) -> str:
        return f"{self.plugin} {self.text}"


@dataclass
class Host:
    """The plugins that loaded, and what went wrong with them and with the others."""

    manager: pluggy.PluginManager
    modules: dict[Plugin, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def implementations(self, hook: str) -> Iterator[tuple[Plugin, pluggy.HookImpl]]:
        """Who implements ``hook``, in the plugins' order."""
        all_of_it = getattr(self.manager.hook, hook).get_hookimpls()
        found = {id(i.plugin): i for i in all_of_it if not (i.wrapper or i.hookwrapper)}
        for plugin, module in self.modules.items():
            if id(module) in found:
                yield plugin, found[id(module)]

    def add(self, plugin: Plugin, entry: EntryPoint) -> None:
        """Load a plugin, or remember why not."""
        try:
            module = entry.load()
        except (Exception, SystemExit) as error:
            self.problems.append(Problem(plugin, f"did not load: {one_line(error)}"))
            return
        try:
            self.manager.register(module, name=plugin.name)
        except Exception as error:
            if self.manager.get_plugin(plugin.name) is module:
                self.manager.unregister(module)
            self.problems.append(Problem(plugin, f"did not load: {_registration(error)}"))
            return
        self.modules[plugin] = module
        self.problems += [Problem(plugin, text) for text in _faults(self.manager, module)]


def discover(disabled: frozenset[str] = frozenset()) -> Host:
    """Load every installed plugin but the disabled ones.

    Args:
        disabled: names of plugins or of distributions; ``*`` is all but mtlkit's own.
    """
    host = Host(pluggy.PluginManager(GROUP))
    host.manager.add_hookspecs(hookspecs)
    for plugin, entry in _installed(host.problems):
        foreign = plugin.distribution != OWN
        if not ({plugin.name, plugin.distribution} & disabled or (foreign and "*" in disabled)):
            host.add(plugin, entry)
    return host


def _installed(problems: list[Problem]) -> list[tuple[Plugin, EntryPoint]]:
    """Own first, then by distribution; a shared entry-point name gets the distribution's."""
    try:
        found = list(entry_points(group=GROUP))
    except Exception:  # the files of some distribution, which may not be a plugin, are damaged
        found = list(_readable(problems))
    entries = sorted(found, key=_order)
    names = [entry.name for entry in entries]
    plugins = []
    for entry in entries:
        distribution, version = _distribution(entry)
        shared = names.count(entry.name) > 1 and distribution != OWN
        name = f"{distribution}:{entry.name}" if shared else entry.name
        plugins.append((Plugin(name, distribution, version), entry))
    return plugins


def _readable(problems: list[Problem]) -> Iterator[EntryPoint]:
    """The entry points of all distributions but the damaged ones, which become problems."""
    seen = set()
    for distribution in distributions():
        name, version = _identity(distribution)
        if name in seen:
            continue
        seen.add(name)
        try:
            yield from distribution.entry_points.select(group=GROUP)
        except Exception as error:
            text = f"has a damaged entry_points.txt: {one_line(error)}"
            problems.append(Problem(Plugin("unknown", name, version), text))


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    return _identity(entry.dist)


def _identity(distribution: Distribution | None) -> tuple[str, str]:
    """Name and version, as far as the distribution's files tell."""
    try:
        metadata = distribution.metadata  # type: ignore[union-attr]
        return metadata["Name"] or "unknown", metadata["Version"] or "0"
    except Exception:
        return "unknown", "0"


def _order(entry: EntryPoint) -> tuple[bool, str, str]:
    distribution, _ = _distribution(entry)
    return distribution != OWN, distribution, entry.name


def _faults(manager: pluggy.PluginManager, module: Any) -> Iterator[str]:
    """Hooks that would never be called as their author means them."""
    known = [name for name in vars(hookspecs) if name.startswith("mtlkit_")]
    for hook in manager.get_hookcallers(module) or ():
        if hook.name not in known:
            yield f"has an unknown hook '{hook.name}'{did_you_mean(hook.name, known)}"
        elif any(i.hookwrapper or i.wrapper for i in hook.get_hookimpls() if i.plugin is module):
            yield f"wraps the hook '{hook.name}'; mtlkit calls plain hooks only"
    if isinstance(module, ModuleType):
        for name, member in inspect.getmembers(module, inspect.isfunction):
            marked = hasattr(member, f"{GROUP}_impl")
            if name in known and member.__module__ == module.__name__ and not marked:
                yield f"has a function '{name}' that lacks @mtlkit.hookimpl and is never called"


def _registration(error: Exception) -> str:
    """What pluggy says about a hook that does not fit its specification, on one line."""
    lines = str(error).splitlines()
    if isinstance(error, pluggy.PluginValidationError) and len(lines) > 2:
        return f"{lines[1].replace('hookimpl definition: ', 'hook ')}: {lines[2]}"
    return one_line(error)


def one_line(error: BaseException) -> str:
    """An exception in one line; the type is left out where the message says it."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ImportError) and text else f"{type(error).__name__}: {text}"


class Observers:
    """Calls the life-cycle hooks of one run.

    Args:
        host: whose plugins are called.
        strict: raise what an observer raises, instead of going on without that observer.
    """

    def __init__(self, host: Host, *, strict: bool = False) -> None:
        self._host = host
        self._strict = strict
        self._detached: set[Plugin] = set()

    def notify(self, hook: str, **payload: Any) -> None:
        """Call every observer of ``hook``; one that raises is logged once and detached."""
        for plugin, implementation in self._host.implementations(hook):
            if plugin in self._detached:
                continue
            try:
                _call(implementation, payload)
            except Exception:
                if self._strict:
                    raise
                self._detached.add(plugin)
                log.exception("%s failed in %s and is detached from this run", plugin, hook)

    def stop_reason(self, run: Any, result: Any) -> str | None:
        """The first reason a plugin has to end the run now; errors are raised."""
        for _, implementation in self._host.implementations("mtlkit_stop_reason"):
            reason: str | None = _call(implementation, {"run": run, "result": result})
            if reason:
                return reason
        return None


def _call(implementation: pluggy.HookImpl, payload: dict[str, Any]) -> Any:
    return implementation.function(*[payload[name] for name in implementation.argnames])
