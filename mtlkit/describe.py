"""Describe: docstring and options of a component, read from its source without importing it."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import mtlkit
from mtlkit.registry import Component

_SECTION = re.compile(r"(Args|Shape|Raises|Reference|References|Returns|Note|Example):(.*)")
_ROOTS = {"object", "ABC", "abc.ABC", "Generic", "Protocol"}


@dataclass(frozen=True)
class Option:
    """What a user may set about a component.

    Args:
        name: as in Python.
        type: as its source has it.
        default: as its source has it; None when the option is required.
        help: from ``Args:``.
    """

    name: str
    type: str
    default: str | None
    help: str


@dataclass(frozen=True)
class Description:
    """What a reader wants to know about a component.

    Args:
        summary: first line of its docstring.
        text: the rest, without sections.
        sections: such as Raises and Reference, by title, without Args.
        options: in the constructor's order.
    """

    summary: str = ""
    text: str = ""
    sections: dict[str, str] = field(default_factory=dict)
    options: tuple[Option, ...] = ()


def describe(component: Component) -> Description:
    """Read a component's source; import it only if that does not tell all.

    Raises:
        ConfigError: neither works.
    """
    try:
        return _from_source(component.target)
    except (_Unclear, OSError, SyntaxError, ImportError, ValueError):
        return from_class(component.load())


def summary(component: Component) -> str:
    """The first line of a component's docstring, or why there is none; never imports it."""
    try:
        module, _, name = component.target.partition(":")
        return parse_docstring(_find_class(_tree(module), name))[0].summary
    except (_Unclear, OSError, SyntaxError, ImportError, ValueError):
        return "(not readable without importing it)"


def from_class(cls: type) -> Description:
    """Describe a class that is imported already."""
    description, helps = parse_docstring(inspect.getdoc(cls) or "")
    parameters = inspect.signature(cls).parameters.values()
    options = [
        Option(
            p.name,
            "" if p.annotation is p.empty else inspect.formatannotation(p.annotation),
            None if p.default is p.empty else repr(p.default),
            helps.get(p.name, ""),
        )
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    ]
    return _with(description, options)


def parse_docstring(source: str | ast.ClassDef) -> tuple[Description, dict[str, str]]:
    """A docstring's parts, and the help in its ``Args:`` by name."""
    text = (ast.get_docstring(source) or "") if isinstance(source, ast.ClassDef) else source
    blocks: dict[str, list[str]] = {"": []}
    title = ""
    for line in inspect.cleandoc(text).splitlines():
        match = _SECTION.fullmatch(line)
        if match:
            title = match[1]
            blocks[title] = [match[2].strip()] if match[2].strip() else []
        else:
            blocks[title].append(line)
    helps = dict(_arguments(blocks.pop("Args", [])))
    summary, _, rest = "\n".join(blocks.pop("")).partition("\n")
    sections = {title: dedent("\n".join(lines)).strip() for title, lines in blocks.items()}
    return Description(summary.strip(), rest.strip(), sections), helps


def _arguments(lines: list[str]) -> Iterator[tuple[str, str]]:
    """``name: help``, each going on over lines that are further in."""
    body = dedent("\n".join(lines))
    for entry in re.split(r"\n(?=\S)", body):
        name, colon, text = entry.partition(":")
        if colon:
            yield name.strip(), " ".join(text.split())


class _Unclear(Exception):
    """The source alone does not tell."""


def _from_source(target: str) -> Description:
    module, _, name = target.partition(":")
    tree = _tree(module)
    description, helps = parse_docstring(_find_class(tree, name))
    home, constructor = _constructor(module, name, helps)
    if constructor is None:
        return description
    arguments = constructor.args
    if arguments.kwarg:
        raise _Unclear
    return _with(
        description,
        [
            Option(
                a.arg,
                _unparse(home, a.annotation) or "",
                _unparse(home, default),
                helps.get(a.arg, ""),
            )
            for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        ],
    )


def _constructor(
    module: str, name: str, helps: dict[str, str]
) -> tuple[ast.Module, ast.FunctionDef | None]:
    """The nearest ``__init__`` of a class, itself first; collects the help of its bases too."""
    tree = _tree(module)
    cls = _find_class(tree, name)
    if cls.decorator_list:
        raise _Unclear
    for item in cls.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            _inherit_help(module, cls, helps)
            return tree, item
    for base in _bases(module, cls):
        found_in, found = _constructor(*base, helps)
        helps.update({k: v for k, v in _help_of(*base).items() if k not in helps})
        if found is not None:
            return found_in, found
    return tree, None


def _inherit_help(module: str, cls: ast.ClassDef, helps: dict[str, str]) -> None:
    """An option that a class takes over from its base need not be documented again."""
    try:
        for base_module, base in _bases(module, cls):
            for name, text in _help_of(base_module, base).items():
                helps.setdefault(name, text)
            _inherit_help(base_module, _find_class(_tree(base_module), base), helps)
    except (_Unclear, ImportError, OSError, SyntaxError):
        return  # help is welcome, not necessary


def _help_of(module: str, name: str) -> dict[str, str]:
    return parse_docstring(_find_class(_tree(module), name))[1]


def _bases(module: str, cls: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Where the base classes are written."""
    for base in cls.bases:
        text = ast.unparse(base)
        if text not in _ROOTS:
            yield _resolve(module, text)


def _resolve(module: str, text: str) -> tuple[str, str]:
    """Module and name of a class that ``module`` calls ``text``."""
    tree = _tree(module)
    owner, _, attribute = text.rpartition(".")
    if owner == "mtlkit":
        return _public(attribute)
    if owner:
        raise _Unclear
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == text:
            return module, text
        if isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name: alias.name for alias in node.names}
            if text in names:
                return _imported(module, node, names[text])
    raise _Unclear


def _imported(module: str, node: ast.ImportFrom, name: str) -> tuple[str, str]:
    """Where ``from ... import name`` finds a class, inside the module's own package or mtlkit."""
    source = node.module or ""
    if node.level:
        source = ".".join([*module.split(".")[: -node.level], source])
    if source == "mtlkit":
        return _public(name)
    if source.partition(".")[0] not in (module.partition(".")[0], "mtlkit"):
        raise _Unclear
    return source, name


def _public(name: str) -> tuple[str, str]:
    if name not in mtlkit._HOME:
        raise _Unclear
    return f"mtlkit.{mtlkit._HOME[name]}", name


@lru_cache
def _tree(module: str) -> ast.Module:
    """The parsed source; only the packages above a module are imported to find it."""
    spec = find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise _Unclear
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _find_class(tree: ast.Module, name: str) -> ast.ClassDef:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise _Unclear


def _unparse(tree: ast.Module, node: ast.expr | None) -> str | None:
    """Source of an expression; a name given at the top of the module shows its value."""
    if isinstance(node, ast.Name):
        for other in tree.body:
            if isinstance(other, ast.Assign) and ast.unparse(other.targets[0]) == node.id:
                return ast.unparse(other.value)
    return None if node is None else ast.unparse(node)


def _with(description: Description, options: list[Option]) -> Description:
    return Description(description.summary, description.text, description.sections, tuple(options))
