"""Predictions for picture files: overlays, masks and JSON."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mtlkit.errors import ConfigError
from mtlkit.model import Model, as_picture
from mtlkit.pictures import save_image
from mtlkit.task import Decoded


def predict_files(model: Model, files: Sequence[Path], output: Path, *, batch_size: int) -> int:
    """Predict for each file and write the answers.

    For ``cat.jpg``: ``cat.json`` with every number, ``cat.overlay.png`` with what can be drawn on
    the picture, and a PNG for each mask or image a task predicts, ``cat.<task>.png``. Boxes are in
    the pixels of the (upright) picture. A file that cannot be read is named on stderr and left out.

    Returns:
        How many files could not be read.

    Raises:
        ConfigError: two files would be written under one name, or the folder cannot be written.
    """
    stems = [file.stem for file in files]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice:
        raise ConfigError(f"several pictures are called '{twice}'; predict them one at a time")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {output}: {error.strerror}") from None
    failed = 0
    for start in range(0, len(files), batch_size):
        pictures = list(_read(files[start : start + batch_size]))
        readable = [(file, picture) for file, picture in pictures if picture is not None]
        failed += len(pictures) - len(readable)
        if readable:
            answers = model.predict_batch([picture for _, picture in readable])
            for (file, picture), answer in zip(readable, answers, strict=True):
                _write(output / file.stem, model, picture, answer)
    return failed


def _read(files: Sequence[Path]) -> Iterator[tuple[Path, Tensor | None]]:
    for file in files:
        try:
            with Image.open(file) as image:
                yield file, as_picture(image)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            print(f"mtlkit predict: cannot read {file}: {error}", file=sys.stderr)
            yield file, None


def _write(stem: Path, model: Model, picture: Tensor, answer: dict[str, Decoded]) -> None:
    numbers: dict[str, Any] = {}
    overlay = picture
    for id, decoded in answer.items():
        numbers[id] = {k: v for k, v in decoded.items() if not isinstance(v, Tensor)}
        for value in decoded.values():
            if isinstance(value, Tensor):
                save_image(stem.with_name(f"{stem.name}.{id}.png"), value)
        if model.tasks[id].kind is not None:
            overlay = model.tasks[id].draw(overlay, decoded)
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(numbers, indent=2) + "\n")
    save_image(stem.with_name(f"{stem.name}.overlay.png"), overlay)
