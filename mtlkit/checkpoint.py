"""Saving and loading: tensors as safetensors, the rest as JSON. Nothing is ever unpickled."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtlkit.errors import CheckpointError
from mtlkit.model_folder import flush

Tree = Any
"""Nested dicts and lists of tensors, numbers, strings, booleans and None."""


def save_tree(folder: Path, tree: Tree) -> None:
    """Write a tree as ``state.json`` and ``state.safetensors``, at once or not at all.

    It is written beside ``folder`` first; a crash leaves the old one as it was.
    """
    tensors: dict[str, Tensor] = {}
    plain = _pack(tree, "", tensors)
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(tensors, fresh / "state.safetensors")
    (fresh / "state.json").write_text(json.dumps(plain))
    for file in fresh.iterdir():
        flush(file)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_tree(folder: Path) -> Tree:
    """Read what :func:`save_tree` wrote; all tensors on the CPU.

    Raises:
        CheckpointError: something is missing or damaged; the message names the file.
    """
    if not folder.exists():  # a crash between the two renames of save_tree
        folder = folder.with_name(folder.name + ".old")
    try:
        plain = json.loads((folder / "state.json").read_text())
        tensors = load_file(folder / "state.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the checkpoint {folder}: {error}") from None
    return _unpack(plain, tensors)


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


def random_state(accelerator: Any) -> Tensor:
    """``[processes, n]`` uint8: the state of torch's random numbers on every process."""
    state = torch.get_rng_state()
    if torch.cuda.is_available():
        state = torch.cat([state, torch.cuda.get_rng_state()])
    if accelerator.num_processes == 1:
        return state[None]
    gathered: Tensor = accelerator.gather(state[None].to(accelerator.device))
    return gathered.cpu()


def set_random_state(states: Tensor, rank: int) -> None:
    """Give this process its state back."""
    mine = states[rank].clone()
    length = len(torch.get_rng_state())
    torch.set_rng_state(mine[:length])
    if torch.cuda.is_available() and len(mine) > length:
        torch.cuda.set_rng_state(mine[length:])
