"""Predictions for picture files: overlays, masks and JSON."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from mtlkit.errors import ConfigError
from mtlkit.model import Model
from mtlkit.picture import as_picture, save_image
from mtlkit.predictor import Predictor
from mtlkit.session import cores

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
"""What a folder is searched for."""


class Picture(NamedTuple):
    """A file's picture, uint8 ``[3, H, W]``, and what the network sees of it."""

    file: Path
    whole: Tensor
    small: Tensor


def predict_files(
    model: Predictor,
    files: Sequence[Path],
    output: Path,
    accelerator: Accelerator,
    *,
    batch_size: int,
    channels_last: bool = True,
    compile: bool = False,
) -> int:
    """Predict for each file and write the answers.

    For ``cat.jpg``: ``cat.json`` with every number, ``cat.overlay.png`` with what can be drawn on
    the picture, and a PNG for each mask or image a task predicts, ``cat.<task>.png``. Boxes are in
    the pixels of the (upright) picture. A file that cannot be read is named on stderr and left out.

    While the network works on a batch, the next one is read and the one before it is written, a
    thread per core; no more than these three are in memory.

    Args:
        model: a network moves to the accelerator's device; an exported one stays where it is.
        files: of pictures, or folders, whose pictures are taken.
        output: folder.
        accelerator: says where a network works, and in which precision.
        batch_size: pictures per forward pass.
        channels_last: keep images in the memory order that convolutions like best.
        compile: compile the network.

    Returns:
        How many files could not be read.

    Raises:
        ConfigError: a folder has no picture, two files would be written under one name, or the
            answers cannot be written.
    """
    files = find_pictures(files)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {output}: {error.strerror}") from None
    layout = torch.channels_last if channels_last else torch.contiguous_format
    predict: Callable[[Tensor], Mapping[str, Tensor]] = model.raw
    if isinstance(model, Model):
        model.to(memory_format=layout).to(accelerator.device)
        predict = partial(model.raw, network=torch.compile(model) if compile else None)
    batch_size = min(batch_size, len(files)) or 1
    failed, writing = 0, list[Future[None]]()
    with ThreadPoolExecutor(cores()) as pool:
        for found in _read_ahead(pool, model, files, batch_size):
            problems = [text for text in found if isinstance(text, str)]
            for problem in problems:
                print(f"mtlkit predict: {problem}", file=sys.stderr)
            failed += len(problems)
            pictures = [picture for picture in found if isinstance(picture, Picture)]
            if pictures:
                seen = torch.stack([p.small for p in pictures]).contiguous(memory_format=layout)
                if compile:  # for one size of a batch
                    seen = torch.cat((seen, seen[:1].expand(batch_size - len(seen), -1, -1, -1)))
                with accelerator.autocast():
                    raw = predict(seen)
                _finish(writing)
                writing = [
                    pool.submit(_write, output, model, picture, raw, i)
                    for i, picture in enumerate(pictures)
                ]
        _finish(writing)
    return failed


def _read_ahead(
    pool: ThreadPoolExecutor, model: Predictor, files: Sequence[Path], batch_size: int
) -> Iterator[list[Picture | str]]:
    """Each batch's pictures, or why there is none; while one is used the next one is read."""
    batches = [files[i : i + batch_size] for i in range(0, len(files), batch_size)]
    ahead: list[Future[Picture | str]] = []
    for batch in [*batches, []]:
        reading, ahead = ahead, [pool.submit(_read, model, file) for file in batch]
        if reading:
            yield [future.result() for future in reading]


def find_pictures(files: Iterable[Path]) -> list[Path]:
    """The files that are meant, each folder's pictures in the order of their names.

    Raises:
        ConfigError: a folder has no picture, or answers would be written under one name.
    """
    found: list[Path] = []
    for file in files:
        inside = [file]
        if file.is_dir():
            inside = sorted(path for path in file.iterdir() if _is_picture(path))
            if not inside:
                raise ConfigError(f"the folder {file} has no picture ({', '.join(SUFFIXES)})")
        found += inside
    for stem, number in Counter(file.stem for file in found).most_common(1):
        if number > 1:
            raise ConfigError(f"several pictures are called '{stem}'; predict them one at a time")
    return found


def _is_picture(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def _read(model: Predictor, file: Path) -> Picture | str:
    """The picture, or why there is none."""
    try:
        with Image.open(file) as image:
            whole = as_picture(image)
    except Exception as error:  # Pillow's decoders raise nearly every kind on broken files
        return f"cannot read {file}: {error}"
    return Picture(file, whole, model.resize(whole))


def _finish(writing: Iterable[Future[None]]) -> None:
    for written in writing:
        try:
            written.result()
        except OSError as error:
            raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from error


def _write(
    output: Path, model: Predictor, picture: Picture, raw: Mapping[str, Tensor], i: int
) -> None:
    stem = picture.file.stem
    numbers: dict[str, Any] = {}
    overlay = picture.whole
    for id, decoded in model.decoded(raw, i, picture.whole).items():
        numbers[id] = {k: v for k, v in decoded.items() if not isinstance(v, Tensor)}
        for value in decoded.values():
            if isinstance(value, Tensor):
                save_image(output / f"{stem}.{id}.png", value)
        if model.tasks[id].kind is not None:
            overlay = model.tasks[id].draw(overlay, decoded)
    (output / f"{stem}.json").write_text(json.dumps(numbers, indent=2) + "\n")
    save_image(output / f"{stem}.overlay.png", overlay)
