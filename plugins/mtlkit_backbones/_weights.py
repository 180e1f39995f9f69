"""Read files of weights: tensors only, nothing in them is ever run."""

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
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


def create_pretrained(name: str, **options: Any) -> Any:
    """timm's model with the weights that timm downloads.

    Weights that timm fetches by an address have a hash in their file's name, which is compared;
    those of the Hugging Face Hub are kept under their SHA-256, which is compared here.

    Raises:
        DataError: they were damaged on the way.
    """
    import timm  # takes seconds, and only a download needs it

    timm.models.set_pretrained_check_hash(True)
    model = timm.create_model(name, pretrained=True, **options)
    _check_cached(getattr(model, "pretrained_cfg", {}))
    return model


def _check_cached(config: Mapping[str, Any]) -> None:
    """Compare the Hub's cached files of this model with the hashes that they are named by."""
    repository, _, revision = str(config.get("hf_hub_id") or "").partition("@")
    for name in ("model.safetensors", "pytorch_model.bin") if repository else ():
        cached = try_to_load_from_cache(repository, name, revision=revision or None)
        if not isinstance(cached, str):
            continue
        file = Path(cached).resolve()
        with file.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        if re.fullmatch("[0-9a-f]{64}", file.name) and file.name != found:
            raise DataError(f"{file} was damaged on its way from the Hub: remove it and try again")
