"""YAML as trees of plain values, whoever wrote it: no objects, no bombs, no surprises."""

import re
from typing import Any

import yaml
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

LARGEST = 2**18
"""Bytes of a text: dozens of times what a run writes, and read within seconds."""
DEEPEST = 32
"""Levels of lists and mappings, those that an alias stands for among them."""
MOST = 100_000
"""Values in a text, those that an alias stands for counted each time."""
LONGEST_NUMBER = 100
"""Characters of a number."""

_TAG = "tag:yaml.org,2002:"
_TAGS = {
    ScalarNode: {_TAG + name for name in ("str", "int", "float", "bool", "null", "merge")},
    SequenceNode: {_TAG + "seq"},
    MappingNode: {_TAG + "map"},
}


class Unreadable(ValueError):
    """A text is no tree of plain values.

    Args:
        reason: what is wrong.
        line: where, from 1, if that is known.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def read_tree(text: bytes | str) -> Any:
    """What a YAML text says, in dicts, lists, text, numbers, booleans and None.

    ``no`` and dates are text; ``1e-3`` is text as well, and becomes a number by the type of its
    option.

    Raises:
        Unreadable: it is no YAML, or it has tags, a name twice, or more than a configuration needs.
    """
    if len(text) > LARGEST:
        raise Unreadable(f"it is longer than {LARGEST} bytes, and no configuration is")
    try:
        return _read(text.decode() if isinstance(text, bytes) else text)
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise Unreadable(str(error.problem), line) from None
    except yaml.YAMLError as error:
        raise Unreadable(" ".join(str(error).split())) from None
    except (ValueError, OverflowError) as error:  # escapes and version numbers beyond all bounds
        raise Unreadable(f"it has a number that is out of range ({error})") from None


def _read(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, loader, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _measure(
    node: Node, loader: "_Loader", known: dict[int, tuple[int, int] | None]
) -> tuple[int, int]:
    """Values and levels in a node, every alias written out; refuses what is not plain.

    Args:
        node: of a composed document, its parents and what lies before it measured already.
        loader: which composed it.
        known: sizes by the nodes' identity; None while a node is being measured.
    """
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise _refused("a value that holds itself", node)
        return size
    known[id(node)] = None
    _check(node, loader)
    inner = [_measure(child, loader, known) for child in _children(node)]
    values, levels = 1 + sum(v for v, _ in inner), 1 + max((n for _, n in inner), default=0)
    if values > MOST:
        raise _refused(f"more than {MOST} values, with what aliases stand for", node)
    if levels > DEEPEST:
        raise _refused(f"nested deeper than {DEEPEST} levels", node)
    known[id(node)] = values, levels
    return values, levels


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, CollectionNode) else []


def _check(node: Node, loader: "_Loader") -> None:
    """Refuse a node that is no plain value, or a mapping with a name twice."""
    if node.tag not in _TAGS[type(node)]:
        raise _refused(f"the tag {node.tag} stands for no plain value", node)
    if isinstance(node, ScalarNode):
        own = loader.resolve(ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
        if node.tag not in (own, _TAG + "str"):
            raise _refused(f"'{node.value}' is no {node.tag.removeprefix(_TAG)}", node)
        if len(node.value) > LONGEST_NUMBER and node.tag in (_TAG + "int", _TAG + "float"):
            raise _refused(f"a number of more than {LONGEST_NUMBER} characters", node)
    if isinstance(node, MappingNode):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise _refused("a name that is a list or a mapping", key)
            if key.value in seen:
                raise _refused(f"'{key.value}' is given twice", key)
            seen.add(key.value)


def _refused(reason: str, node: Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, reason, node.start_mark)


class _Loader(yaml.SafeLoader):
    """YAML where only true and false are booleans, dates are text, and nesting has an end."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            reason = f"nested deeper than {DEEPEST} levels"
            raise yaml.composer.ComposerError(None, None, reason, mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_DROPPED = {_TAG + name for name in ("bool", "timestamp", "value")}
_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in _DROPPED]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _TAG + "bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
