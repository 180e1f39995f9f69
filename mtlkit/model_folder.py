"""The folder of a saved model: ``config.json`` and ``model.safetensors``; nothing else is read.

Whoever wrote them, reading runs nothing, follows no link out of the folder, waits for no pipe, and
takes no more memory than the weights do. ``safetensors`` itself refuses a file whose header does
not describe it byte for byte: overlapping, missing or surplus bytes, shapes that do not fit their
bytes, unknown types. What is in it is compared here with the network that is to have it.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtlkit.errors import CheckpointError, shown
from mtlkit.files import replace, replace_text

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
LARGEST_CONFIG = 2**22
"""Bytes of ``config.json``: room for the names of tens of thousands of classes, and no more."""
LARGEST_HEADER = 2**24
"""Bytes of the weights' header: room for a hundred thousand tensors."""
LONGEST_NUMBER = 25
"""Characters of a number in ``config.json``."""

_FLOATS = ("F64", "F32", "F16", "BF16")
_DTYPES = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Stored:
    """What the header says of one tensor.

    Args:
        shape: its sizes.
        dtype: in safetensors' words, such as ``F32``.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Weights:
    """Weights that lie in a file; only their header was read.

    Args:
        file: a regular file.
        stored: what it holds, by name.
    """

    file: Path
    stored: Mapping[str, Stored]

    @property
    def bytes(self) -> int:
        """Memory of all of them as single precision numbers."""
        return 4 * sum(math.prod(stored.shape) for stored in self.stored.values())

    def load_into(self, module: nn.Module) -> None:
        """Give them to a module that has exactly these.

        Raises:
            CheckpointError: it has not; the message names the first weight that differs.
        """
        state: dict[str, Tensor] = module.state_dict()
        for name in sorted(state.keys() | self.stored.keys()):
            self._compare(name, state.get(name))
        try:
            module.load_state_dict(load_file(self.file))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read {self.file}: {error}") from None

    def _compare(self, name: str, wanted: Tensor | None) -> None:
        stored = self.stored.get(name)
        if stored is None:
            raise CheckpointError(f"{WEIGHTS} lacks {shown(name)}, which the network has")
        if wanted is None:
            raise CheckpointError(f"{WEIGHTS} has {shown(name)}, which the network has not")
        if stored.shape != tuple(wanted.shape):
            raise CheckpointError(
                f"{WEIGHTS} has {shown(name)} of shape {list(stored.shape)}, but the network's is "
                f"{list(wanted.shape)}"
            )
        floats = wanted.is_floating_point()
        if not (stored.dtype in _FLOATS if floats else _DTYPES.get(stored.dtype) == wanted.dtype):
            raise CheckpointError(
                f"{WEIGHTS} has {shown(name)} of type {stored.dtype}, but the network's is "
                f"{str(wanted.dtype).removeprefix('torch.')}"
            )


def save_model(folder: Path, model: nn.Module, config: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``config.json``, all that is needed to predict."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    replace(folder / WEIGHTS, lambda file: save_file(state, file))
    replace_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def read_model(folder: Path) -> tuple[dict[str, Any], Weights]:
    """Configuration and weights that :func:`save_model` wrote.

    Args:
        folder: of a model, or of a run that has one.

    Raises:
        CheckpointError: there is no model, or it cannot be read or is no model's; the message
            names the file and what is wrong with it.
    """
    places = [folder / "model", folder]
    home = next((place for place in places if os.path.lexists(place / CONFIG)), None)
    if home is None:
        raise CheckpointError(
            f"no model in {folder}: it has neither model/{CONFIG} nor {CONFIG}; "
            "give the folder of a run that has ended, or of a saved model"
        )
    try:
        config, weights = (_inside(folder, home / name) for name in (CONFIG, WEIGHTS))
        return _read_config(config), _read_header(weights)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the model in {home}: {error}") from None


def _inside(folder: Path, file: Path) -> Path:
    """The regular file that is meant, which a link may name as long as it lies in the folder.

    The Hub's client keeps a snapshot's files beside it, in ``blobs``: that is its place too.

    Raises:
        ValueError: it is something else.
    """
    try:
        found, home = file.resolve(strict=True), folder.resolve()
    except RuntimeError:  # Python 3.12 and earlier, of links in a circle
        raise ValueError(f"{file.name} is a link that leads nowhere") from None
    kept = [home.parents[1] / "blobs"] if home.parent.name == "snapshots" else []
    if not any(found.is_relative_to(place) for place in (home, *kept)):
        raise ValueError(f"{file.name} is a link that leaves the folder; put the file in its place")
    if not found.is_file():
        raise ValueError(f"{file.name} is no regular file")
    return found


def _read_config(file: Path) -> dict[str, Any]:
    with file.open("rb") as handle:
        data = handle.read(LARGEST_CONFIG + 1)
    if len(data) > LARGEST_CONFIG:
        raise ValueError(f"{CONFIG} is larger than {LARGEST_CONFIG} bytes")
    try:
        tree = json.loads(
            data.decode(),
            object_pairs_hook=_mapping,
            parse_int=lambda text: int(_short(text)),
            parse_float=lambda text: _finite(_short(text)),
            parse_constant=_finite,
        )
    except RecursionError:
        raise ValueError(f"{CONFIG} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{CONFIG}: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{CONFIG} must be a mapping, but is {shown(tree)}")
    return tree


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in tree if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} is given twice")
    return tree


def _short(text: str) -> str:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"the number {text[:10]}... has {len(text)} characters")
    return text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _read_header(file: Path) -> Weights:
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"{WEIGHTS} has a header of {length} bytes; {LARGEST_HEADER} are the most")
    try:
        with safe_open(file, "pt") as content:
            slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118
            stored = {n: Stored(tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{WEIGHTS}: {error}") from None
    return Weights(file, stored)
