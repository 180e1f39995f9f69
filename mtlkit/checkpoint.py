"""Saving and loading: tensors as safetensors, the rest as JSON. Nothing is ever unpickled."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtlkit.errors import CheckpointError
from mtlkit.files import flush, replace, replace_text

Tree = Any
"""Nested dicts and lists of tensors, numbers, strings, booleans and None."""

FORMAT = 1
FILES = ("state.json", "state.safetensors")
MANIFEST = "manifest.sha256"
"""Written last: without it, or if it does not agree with the files, a checkpoint does not count."""


def save_tree(folder: Path, tree: Tree) -> None:
    """Write a tree to ``folder``, at once or not at all; what it held before is replaced.

    It is written beside ``folder`` first; a crash leaves the old one there, or as ``.old``.
    """
    fresh = _write(folder, tree)
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    fresh.rename(folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, tree: Tree) -> Path:
    """Write a tree beside ``folder``, completely, or nothing."""
    tensors: dict[str, Tensor] = {}
    plain = _pack(tree, "", tensors)
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        save_file(tensors, fresh / "state.safetensors")
        text = json.dumps({"format": FORMAT, "tree": plain})
        (fresh / "state.json").write_text(text, encoding="utf-8")
        for name in FILES:
            flush(fresh / name)
        (fresh / MANIFEST).write_text(_manifest(fresh), encoding="utf-8")
        flush(fresh / MANIFEST)
        flush(fresh)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise error if isinstance(error, OSError) else OSError(str(error)) from None
    return fresh


def _manifest(folder: Path) -> str:
    """A line for each file, as ``sha256sum --check`` reads them."""
    lines = []
    for name in FILES:
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def load_tree(folder: Path) -> Tree:
    """Read what :func:`save_tree` wrote; all tensors on the CPU.

    Raises:
        CheckpointError: something is missing, half-written or damaged; the message says what.
    """
    if not folder.exists():  # a crash between the two renames of save_tree
        folder = folder.with_name(folder.name + ".old")
    problem = damage(folder)
    if problem:
        raise CheckpointError(f"the checkpoint {folder} is damaged: {problem}")
    try:
        plain = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors")
        if plain["format"] != FORMAT:
            raise ValueError(f"it has format {plain['format']}, this mtlkit reads {FORMAT}")
        return _unpack(plain["tree"], tensors)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the checkpoint {folder}: {error}") from None


def damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, if anything is."""
    try:
        written = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return f"{MANIFEST} is missing" if folder.exists() else "it is missing"
    except OSError as error:
        return f"{MANIFEST} cannot be read: {error.strerror}"
    try:
        found = _manifest(folder).encode()
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename).name} cannot be read: {error.strerror}"
    if written == found:
        return None
    lines = dict(zip(FILES, found.splitlines(keepends=True), strict=True))
    changed = [name for name, line in lines.items() if line not in written]
    listed = re.fullmatch(rb"([0-9a-f]{64}  \S+\n){2}", written)
    return f"{changed[0] if listed and changed else MANIFEST} is not as it was written"


class Checkpoints:
    """The states from which a run can go on: ``last``, and some before it.

    When a new one is written, ``last`` becomes ``step-N``.

    Args:
        folder: that holds them.
        keep: how many to keep, ``last`` among them, at least 1.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self.last = folder / "last"
        self._step = 0  # of what last holds
        self._useless: list[Path] = []

    def save(self, tree: Tree, step: int) -> None:
        """Write ``last``; the one that it replaces stays as the first of those before it."""
        fresh = _write(self.last, tree)
        for folder in self._useless:
            shutil.rmtree(folder, ignore_errors=True)
        self._useless = []
        if self.last.exists():
            before = self.folder / f"step-{self._step:08d}"
            shutil.rmtree(before, ignore_errors=True)
            self.last.rename(before)
        fresh.rename(self.last)
        flush(self.folder)
        self._step = step
        for folder in self.earlier()[self.keep - 1 :]:
            shutil.rmtree(folder, ignore_errors=True)

    def earlier(self) -> list[Path]:
        """Those before ``last``, the newest first."""
        names = [f.name for f in self.folder.iterdir()] if self.folder.is_dir() else []
        numbered = [name for name in names if re.fullmatch(r"step-\d+", name)]
        return [self.folder / name for name in sorted(numbered, key=_number, reverse=True)]

    def exist(self) -> bool:
        """Whether there is anything to go on from."""
        return self.last.exists() or bool(self.earlier())

    def load(self) -> tuple[Tree, list[str]]:
        """The newest that is whole, and what is wrong with newer ones.

        Raises:
            CheckpointError: none is whole; the message says what is wrong with the newest.
        """
        problems: list[str] = []
        for folder in [*([self.last] if self.last.exists() else []), *self.earlier()]:
            try:
                tree = load_tree(folder)
            except CheckpointError as error:
                problems.append(str(error))
                self._useless.append(folder)
            else:
                self._step = tree["progress"]["step"]
                return tree, problems
        raise CheckpointError(f"{problems[0]}; there is no other to go on from")


def _number(name: str) -> int:
    return int(name.removeprefix("step-"))


def save_model(folder: Path, model: nn.Module, config: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``config.json``, all that is needed to predict."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    replace(folder / "model.safetensors", lambda file: save_file(state, file))
    replace_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights that :func:`save_model` wrote.

    Args:
        folder: of a model, or of a run that has one.

    Raises:
        CheckpointError: there is no model, or it cannot be read.
    """
    places = [folder / "model", folder]
    home = next((place for place in places if (place / "config.json").is_file()), None)
    if home is None:
        raise CheckpointError(
            f"no model in {folder}: it has neither model/config.json nor config.json; "
            "give the folder of a run that has ended, or of a saved model"
        )
    try:
        config = json.loads((home / "config.json").read_text())
        return config, load_file(home / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the model in {home}: {error}") from None


def _pack(tree: Tree, path: str, tensors: dict[str, Tensor]) -> Any:
    """The tree with each tensor moved to ``tensors`` and its path left behind."""
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(tree, dict):
        keys = [[key, _pack(value, f"{path}/{key}", tensors)] for key, value in tree.items()]
        return {"dict": keys}
    if isinstance(tree, list | tuple):
        items = [_pack(value, f"{path}/{i}", tensors) for i, value in enumerate(tree)]
        return {"list": items}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"a checkpoint cannot hold {type(tree).__name__} (at {path})")


def _unpack(plain: Any, tensors: dict[str, Tensor]) -> Tree:
    if not isinstance(plain, dict):
        return plain
    if "tensor" in plain:
        return tensors[plain["tensor"]]
    if "dict" in plain:
        return {key: _unpack(value, tensors) for key, value in plain["dict"]}
    return [_unpack(value, tensors) for value in plain["list"]]
