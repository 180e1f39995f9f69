"""Scaffold: a new package with one component, its tests and its README, ready to be changed.

The templates are a working package called ``my-plugin``; a new one is the same under its own name.
"""

import keyword
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from mtlkit.errors import ConfigError
from mtlkit.registry import Registry

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def create(registry: Registry, kind: str, name: str, folder: Path) -> list[Path]:
    """Write a package into ``folder / name`` and return its files.

    Args:
        registry: whose names are taken.
        kind: of the component.
        name: of the component, the plugin and the distribution; the package has ``_`` for ``-``.
        folder: which gets the new folder.

    Raises:
        ConfigError: the name cannot be used, or the folder cannot be written.
    """
    home = folder / name
    _check(registry, kind, name)
    if home.exists():
        raise ConfigError(f"{home} is there already; choose another NAME or --output")
    texts = {home / path: text for path, text in render(kind, name).items()}
    try:
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the package: {error}") from error
    return list(texts)


def render(kind: str, name: str) -> dict[str, str]:
    """The files of a package, by their paths in it."""
    package = _package(name)
    component = _read(f"{kind}.py")
    _, use, _ = component.split("``", 2)  # the command in its first line
    common = {"pyproject.toml": "pyproject.toml", "README.md": "README.md",
              "hooks.py": f"{package}/__init__.py"}  # fmt: skip
    texts = {
        path: _read(template).replace("balancer", kind).replace("USE", use)
        for template, path in common.items()
    }
    texts[f"{package}/{kind}.py"] = component
    texts[f"tests/test_{package}.py"] = _read(f"test_{kind}.py")
    return {path: _rename(text, name) for path, text in texts.items()}


def _read(template: str) -> str:
    return (files("mtlkit") / "templates" / template).read_text(encoding="utf-8")


def _rename(text: str, name: str) -> str:
    names = {"my-plugin": name, "my_plugin": _package(name), "MyPlugin": _class(name)}
    for ours, theirs in names.items():
        text = text.replace(ours, theirs)
    return text


def _package(name: str) -> str:
    return name.replace("-", "_")


def _class(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def _check(registry: Registry, kind: str, name: str) -> None:
    package = _package(name)
    if not _NAME.fullmatch(name) or keyword.iskeyword(package) or package == "tests":
        raise ConfigError(
            f"'{name}' cannot name a package; use small letters, digits and single dashes, "
            "a letter first, as in my-plugin"
        )
    taken = [c for c in registry.components(kind) if c.name == name]
    if taken:
        raise ConfigError(f"there is a {kind} '{name}' already, of {taken[0].source}")
    example = _read(f"{kind}.py").replace("MyPlugin", "")
    if re.search(rf"\b{_class(name)}\b", example):
        raise ConfigError(f"the example of a {kind} has a '{_class(name)}' already")
    if find_spec(package) is not None:
        raise ConfigError(f"there is a package '{package}' already, which this one would hide")
