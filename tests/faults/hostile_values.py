"""What a stranger may write where a value is expected, and a saved model to write it into."""

import copy
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mtlkit import build, config
from mtlkit.errors import MtlkitError
from mtlkit.model_folder import save_model

WORDS = [
    "seg", "cls", "segnet", "timm", "unet", "shapes", "true", "null", "~", "no", "1", "-1", "1.5",
    "1e-3", "1e999", "nan", ".inf", "0x" + "f" * 40, "9" * 400, "64", "96x128", "2026-11-26",
    "", " ", ".", "..", "../..", "/etc/passwd", "a/b", "a\0b", "\x1b[31mred", "\u202e", "\ud800",
    "\ufeff", "x" * 3000, "[", "[1, 2", "{a: 1}", "{", "a=1", "a=[", "=", ",", "%", "&a [*a]",
    "hostile_trap:Trap", "hostile_trap.Trap", "{class_path: hostile_trap.Trap}", "antigravity.x",
    "!!python/object/apply:hostile_trap.run []", '{"\\x63lass_path": hostile_trap.Trap}',
]  # fmt: skip
WORD = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
LEAF = st.one_of(
    WORD,
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([10**9, -(10**30), 10**400]),
    st.floats(),
    st.just({"class_path": "hostile_trap.Trap", "init_args": {}}),
)
VALUE = st.recursive(
    LEAF, lambda v: st.lists(v, max_size=3) | st.dictionaries(WORD, v, max_size=3), max_leaves=6
)


@st.composite
def mutated(draw: st.DrawFn, tree: Any) -> Any:
    """The tree with one to three entries replaced, removed, renamed or buried."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        node = tree
        while node:
            key = draw(
                st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node)))
            )
            if isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
                node = node[key]
                continue
            _change(draw, node, key)
            break
    return tree


def _change(draw: st.DrawFn, node: Any, key: Any) -> None:
    how = draw(st.sampled_from(["replace", "replace", "remove", "rename", "bury"]))
    old = node.pop(key) if how in ("remove", "rename") else node[key]
    if how == "rename" and isinstance(node, dict):
        node[draw(WORD)] = old
    if how == "replace":
        node[key] = draw(VALUE)
    if how == "bury":
        for _ in range(draw(st.sampled_from([1, 3, 60]))):
            old = [old] if draw(st.booleans()) else {"name": old}
        node[key] = old


@contextmanager
def harmless(folder: Path) -> Iterator[list[str]]:
    """What happens inside writes nothing, takes no time, and fails in words for the user alone.

    Args:
        folder: in which nothing may change; what may be said is collected.
    """
    before, start = listing(folder), time.process_time()
    said: list[str] = []
    try:
        yield said
    except MtlkitError as error:
        said.append(str(error))
    assert time.process_time() - start < 20
    assert listing(folder) == before
    for text in said:
        assert all(c.isprintable() or c == "\n" for c in text), ascii(text)
        assert 0 < len(text) < 5000


def listing(folder: Path) -> dict[str, bytes]:
    """Every name below a folder, with the content of regular files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else b""
        for path in folder.rglob("*")
    }


def small_model(folder: Path) -> Path:
    """A run folder with a saved model of three tasks, untrained."""
    options = [
        "--tasks", "seg,cls,edge", "--backbone", "segnet", "--backbone.width", "2",
        "--image-size", "32", "--tasks.edge.head", "unet", "--data.train", "4", "--data.val", "2",
        "--data.test", "2",
    ]  # fmt: skip
    chosen = config.parse(options)
    parts = build.build(chosen)
    save_model(folder / "model", parts.model, build.model_config(chosen, parts))
    return folder


def edit(folder: Path, *path: Any, value: Any) -> None:
    """Set one value in ``config.json`` of a run folder."""
    file = folder / "model" / "config.json"
    tree = node = json.loads(file.read_text())
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    file.write_text(json.dumps(tree))
