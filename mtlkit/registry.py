"""Registry: every component that installed plugins bring, by kind and name."""

import inspect
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any

from mtlkit.errors import ConfigError, MtlkitError, PluginError, did_you_mean
from mtlkit.plugin import OWN, Host, Observers, Plugin, Problem, discover, one_line

_BASES = {
    "task": "mtlkit.task:Task",
    "head": "mtlkit.head:Head",
    "backbone": "mtlkit.backbone:Backbone",
    "balancer": "mtlkit.balancer:LossBalancer",
    "dataset": "mtlkit.data:Dataset",
}
KINDS = tuple(_BASES)

log = logging.getLogger("mtlkit")


@dataclass(frozen=True)
class Component:
    """One registered component; its module is imported by :meth:`load`, not before.

    Args:
        kind: one of ``KINDS``.
        name: under which the plugin registers it.
        plugin: that registers it.
        distribution: that brings the plugin.
        version: of the distribution.
        target: ``module:Class``.
        given: the class itself, when the plugin named no target.
    """

    kind: str
    name: str
    plugin: str
    distribution: str
    version: str
    target: str
    given: type | None = field(default=None, compare=False, repr=False)

    @property
    def qualified(self) -> str:
        """The name that no other plugin can take."""
        return f"{self.plugin}/{self.name}"

    @property
    def source(self) -> str:
        """Plugin, distribution and version, for messages."""
        return str(Plugin(self.plugin, self.distribution, self.version))

    def load(self) -> type:
        """Import the class.

        Raises:
            ConfigError: the target is missing, or is no concrete class of its kind.
            PluginError: the same, in strict mode.
        """
        try:
            found = self.given or _import(self.target)
        except Exception as error:
            raise self._broken(f"cannot be loaded: {one_line(error)}") from error
        base = _import(_BASES[self.kind])
        if not (isinstance(found, type) and issubclass(found, base)):
            raise self._broken(f"is not a subclass of mtlkit.{base.__name__}: {self.target}")
        if inspect.isabstract(found):
            lacking = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise self._broken(f"lacks: {lacking} ({self.target})")
        return found

    def _broken(self, text: str) -> MtlkitError:
        error = PluginError if is_strict() else ConfigError
        return error(f"{self.kind} '{self.name}' of {self.source} {text}")


class Registry:
    """What the plugins of one :class:`~mtlkit.plugin.Host` bring."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._components = [c for kind in KINDS for c in _collect(host, kind)]
        self._bare: dict[tuple[str, str], list[Component]] = {}
        for component in self._components:
            self._bare.setdefault((component.kind, component.name), []).append(component)
        for sharers in self._bare.values():
            host.problems += _clashes(sharers)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Those that loaded."""
        return tuple(self._host.modules)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with plugins, those that did not load among them."""
        return tuple(self._host.problems)

    def components(self, kind: str | None = None) -> tuple[Component, ...]:
        """All of a kind, or all, in the plugins' order."""
        return tuple(c for c in self._components if kind in (None, c.kind))

    def hooks(self, plugin: Plugin) -> list[str]:
        """Names of the life-cycle hooks that ``plugin`` implements."""
        hooks = self._host.manager.get_hookcallers(self._host.modules[plugin]) or []
        tables = {_hook(kind) for kind in KINDS}
        return sorted(h.name for h in hooks if h.has_spec() and h.name not in tables)

    def names(self, kind: str) -> list[str]:
        """Every name that :meth:`find` takes, qualified where the bare one is not enough."""
        return sorted(self.shortest(c) for c in self.components(kind))

    def shortest(self, component: Component) -> str:
        """The bare name of ``component`` if that finds it, else its qualified name."""
        sharers = self._bare[component.kind, component.name]
        return component.name if _winner(sharers) is component else component.qualified

    def find(self, kind: str, name: str) -> Component:
        """The component called ``name`` or ``plugin/name``.

        Raises:
            ConfigError: there is none, or the bare name fits several.
        """
        if kind not in KINDS:
            raise ConfigError(f"unknown kind '{kind}'; known: {', '.join(KINDS)}")
        sharers = self._bare.get((kind, name), [])
        winner = _winner(sharers)
        if winner is None and not sharers:
            winner = next((c for c in self.components(kind) if c.qualified == name), None)
        if winner is not None:
            return winner
        if sharers:
            raise ConfigError(f"{kind} {_ambiguity(sharers)}")
        raise ConfigError("\n  ".join(self._unknown(kind, name)))

    def _unknown(self, kind: str, name: str) -> Iterator[str]:
        names = self.names(kind)
        yield f"unknown {kind} '{name}'{did_you_mean(name, names)}"
        yield f"available: {', '.join(names) or f'none; no installed plugin brings a {kind}'}"
        yield from (f"note: {problem}" for problem in self.problems)

    def observers(self) -> Observers:
        """Who is told of the events of one run; ask anew for each run."""
        return Observers(self._host, strict=is_strict())


def load() -> Registry:
    """The registry of this process, made when first asked for.

    ``MTLKIT_DISABLE_PLUGINS=a,b`` leaves out plugins by their own or their distribution's name,
    ``*`` all but mtlkit's own.

    Raises:
        PluginError: a plugin has a problem and ``MTLKIT_STRICT_PLUGINS`` is set.
    """
    disabled = os.environ.get("MTLKIT_DISABLE_PLUGINS", "").split(",")
    registry = _load(frozenset(name.strip() for name in disabled if name.strip()))
    if registry.problems and is_strict():
        raise PluginError("\n  ".join(map(str, registry.problems)))
    return registry


@lru_cache
def _load(disabled: frozenset[str]) -> Registry:
    registry = Registry(discover(disabled))
    if not is_strict() and os.environ.get("LOCAL_RANK", "0") == "0":
        for problem in registry.problems:
            log.warning("mtlkit: note: %s", problem)
    return registry


def forget() -> None:
    """Look for plugins again when next asked, after one was installed in this process."""
    _load.cache_clear()


def is_strict() -> bool:
    """Whether a plugin's problem ends the program."""
    return os.environ.get("MTLKIT_STRICT_PLUGINS", "0") not in ("", "0")


def _import(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _hook(kind: str) -> str:
    return f"mtlkit_{kind}s"


def _collect(host: Host, kind: str) -> Iterator[Component]:
    """Call one hook plugin by plugin; what is wrong with an answer becomes a problem."""
    for plugin, implementation in host.implementations(_hook(kind)):
        try:
            table = implementation.function()
        except (Exception, SystemExit) as error:
            host.problems.append(Problem(plugin, f"failed in {_hook(kind)}: {one_line(error)}"))
            continue
        if not isinstance(table, Mapping):
            text = f"returned {type(table).__name__} from {_hook(kind)} instead of a mapping"
            host.problems.append(Problem(plugin, text))
            continue
        for name, target in table.items():
            fault = _fault(name, target)
            if fault:
                host.problems.append(Problem(plugin, f"has a {kind} {name!r} {fault}"))
            else:
                yield _component(kind, name, plugin, target)


def _fault(name: object, target: object) -> str:
    if not isinstance(name, str) or not name or set(name) & set(" /,=\t\n"):
        return "whose name is not text without spaces, '/', ',' and '='"
    if isinstance(target, type) or (isinstance(target, str) and target.count(":") == 1):
        return ""
    return f"that is neither 'module:Class' nor a class: {target!r}"


def _component(kind: str, name: str, plugin: Plugin, target: str | type) -> Component:
    given = target if isinstance(target, type) else None
    text = f"{target.__module__}:{target.__qualname__}" if isinstance(target, type) else target
    return Component(kind, name, plugin.name, plugin.distribution, plugin.version, text, given)


def _winner(sharers: list[Component]) -> Component | None:
    """Who has the bare name: mtlkit's own, or the only one."""
    own = [c for c in sharers if c.distribution == OWN] or sharers
    return own[0] if len(own) == 1 else None


def _ambiguity(sharers: list[Component]) -> str:
    sources = " and ".join(c.source for c in sharers)
    names = " or ".join(f"'{c.qualified}'" for c in sharers)
    return f"'{sharers[0].name}' is brought by {sources}; say {names}"


def _clashes(sharers: list[Component]) -> Iterator[Problem]:
    """One problem per third party whose name does not stand for its component alone."""
    winner = _winner(sharers)
    for loser in sharers:
        if loser is winner:
            continue
        others = " and ".join(c.source for c in sharers if c is not loser)
        text = f"brings the {loser.kind} '{loser.name}', and so does {others}"
        plugin = Plugin(loser.plugin, loser.distribution, loser.version)
        yield Problem(plugin, f"{text}; this one is '{loser.qualified}'")
