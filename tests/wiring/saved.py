"""Saved models that were never trained, but whose every number differs from its start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mtlkit.build import build, model_config
from mtlkit.config import from_mapping
from mtlkit.model import Model
from mtlkit.model_folder import save_model

SIX = "seg,cls,bbox,denoise,edge,colourise"
DATA = {"name": "shapes", "train": 2, "val": 1, "test": 1}


def save(
    folder: Path,
    backbone: Mapping[str, Any],
    tasks: Any = SIX,
    *,
    views: str = "shared",
    size: int = 64,
) -> Path:
    """A model folder."""
    config = from_mapping(
        {"tasks": tasks, "backbone": backbone, "data": DATA, "views": views, "image_size": size}
    )
    parts = build(config)
    stir(parts.model)
    save_model(folder, parts.model, model_config(config, parts))
    return folder


def stir(model: Model) -> None:
    """Give batch norm and biases values that are not 0 and 1."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.ndim == 1 and value.is_floating_point():
                low = 0.5 if name.endswith(("var", "weight")) else -0.2
                value.copy_(low + torch.rand(value.shape, generator=random))
