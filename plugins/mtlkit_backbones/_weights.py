"""Read files of weights: tensors only, nothing in them is ever run."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mtlkit import DataError

Pretrained = bool | Path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from a safetensors or a torch file.

    What training scripts wrap around them (``{"state_dict": ...}``, ``module.``) is taken off.

    Raises:
        DataError: the file is missing, unreadable, or holds no tensors by name.
    """
    if not path.is_file():
        raise DataError(f"no file of weights at {path}; give the path of a safetensors or pth file")
    content = _read(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    named = content.items() if isinstance(content, dict) else ()
    tensors = {str(k).removeprefix("module."): v for k, v in named if isinstance(v, Tensor)}
    if not tensors:
        raise DataError(f"{path} holds no tensors by name; save a network's state_dict there")
    return tensors


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise DataError(
            f"cannot read weights from {path} ({type(error).__name__}): it must be a safetensors "
            "file, or a torch file that holds nothing but tensors"
        ) from error


def shape(tensor: Tensor) -> str:
    """For messages: ``[64, 3, 3, 3]``."""
    return str(list(tensor.shape))


def download_failed(name: str, error: Exception) -> DataError:
    """The error for weights that could not be fetched."""
    reason = " ".join(str(error).split())[:200]
    return DataError(
        f"weights of '{name}' could not be downloaded ({type(error).__name__}: {reason}); "
        "give the path of a local file instead, or pretrained false"
    )
