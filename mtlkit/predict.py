"""Predictions for picture files: overlays, masks and JSON."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from mtlkit.data import one_line
from mtlkit.errors import ConfigError
from mtlkit.model import Model
from mtlkit.picture import LARGEST, as_picture, open_picture, replacing, save_image
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
    the picture, and a PNG for each mask or image a task predicts, ``cat.<task>.png``. A map of
    numbers is drawn there and written to ``cat.<task>.npy``. All is in the pixels of the (upright)
    picture. A file that cannot be read, or for which the network gives numbers that are not finite,
    is named on stderr and left out. What has the name of an answer is replaced; if it is a link,
    what it leads to stays as it is.

    While the network works on a batch, the next one is read and the one before it is written, a
    thread per core; no more than these three are in memory. A batch of large pictures is smaller.

    Args:
        model: a network moves to the accelerator's device; an exported one stays where it is.
        files: of pictures, or folders, whose pictures are taken.
        output: folder.
        accelerator: says where a network works, and in which precision.
        batch_size: pictures per forward pass.
        channels_last: keep images in the memory order that convolutions like best.
        compile: compile the network.

    Returns:
        How many files have no answer.

    Raises:
        ConfigError: a folder has no picture, two files would be written under one name, an answer
            would take the place of a picture, or the answers cannot be written.
    """
    files = find_pictures(files)
    _check_apart(files, output, model.tasks)
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
            _tell(problems)
            failed += len(problems)
            pictures = [picture for picture in found if isinstance(picture, Picture)]
            if pictures:
                seen = torch.stack([p.small for p in pictures]).contiguous(memory_format=layout)
                if compile:  # for one size of a batch
                    seen = torch.cat((seen, seen[:1].expand(batch_size - len(seen), -1, -1, -1)))
                with accelerator.autocast():
                    raw = predict(seen)
                _finish(writing)
                odd = [_oddity(raw, i) for i in range(len(pictures))]
                _tell(f"{p.file}: {text}" for p, text in zip(pictures, odd, strict=True) if text)
                failed += sum(map(bool, odd))
                writing = [
                    pool.submit(_write, output, model, picture, raw, i)
                    for i, picture in enumerate(pictures)
                    if not odd[i]
                ]
        _finish(writing)
    return failed


def _read_ahead(
    pool: ThreadPoolExecutor, model: Predictor, files: Sequence[Path], batch_size: int
) -> Iterator[list[Picture | str]]:
    """Each batch's pictures, or why there is none; while one is used the next one is read."""
    ahead: list[Future[Picture | str]] = []
    for batch in chain(_batches(files, batch_size), [[]]):
        reading, ahead = ahead, [pool.submit(_read, model, file) for file in batch]
        if reading:
            yield [future.result() for future in reading]


def _batches(files: Sequence[Path], batch_size: int) -> Iterator[list[Path]]:
    """Files to be read at once: together they have no more pixels than one picture may have."""
    batch: list[Path] = []
    pixels = 0
    for file in files:
        own = _count_pixels(file)
        if batch and (len(batch) == batch_size or pixels + own > LARGEST):
            yield batch
            batch, pixels = [], 0
        batch.append(file)
        pixels += own
    if batch:
        yield batch


def _count_pixels(file: Path) -> int:
    try:
        with open_picture(file) as image:
            return image.width * image.height
    except Exception:  # it is told when the file is read
        return 0


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


def _check_apart(files: Sequence[Path], output: Path, tasks: Iterable[str]) -> None:
    """Refuse to write an answer where a picture is."""
    pictures = {_place(file) for file in files} - {None}
    ends = ["json", "overlay.png", *(f"{id}.png" for id in tasks)]
    for answer in (output / f"{file.stem}.{end}" for file in files for end in ends):
        if _place(answer) in pictures:
            raise ConfigError(
                f"the picture {answer} would be overwritten by an answer; choose another --output"
            )


def _place(file: Path) -> tuple[int, int] | None:
    """What a name stands for, links not followed."""
    try:
        found = os.lstat(file)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _is_picture(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def _read(model: Predictor, file: Path) -> Picture | str:
    """The picture, or why there is none."""
    try:
        with open_picture(file) as image:
            whole = as_picture(image)
    except Exception as error:  # Pillow's decoders raise nearly every kind on broken files
        return f"cannot read {file}: {error}"
    return Picture(file, whole, model.resize(whole))


def _tell(problems: Iterable[str]) -> None:
    for problem in problems:
        print(f"mtlkit predict: {one_line(problem)}", file=sys.stderr)


def _oddity(raw: Mapping[str, Tensor], i: int) -> str:
    """Why the network's answers for picture ``i`` are none, or nothing."""
    odd = [id for id, values in raw.items() if not bool(values[i].isfinite().all())]
    return f"the network's numbers for {', '.join(odd)} are not finite" if odd else ""


def _finish(writing: Iterable[Future[None]]) -> None:
    for written in writing:
        try:
            written.result()
        except OSError as error:
            what = error.filename or "an answer"
            raise ConfigError(f"cannot write {what}: {error.strerror}") from error


def _write(
    output: Path, model: Predictor, picture: Picture, raw: Mapping[str, Tensor], i: int
) -> None:
    stem = picture.file.stem
    numbers: dict[str, Any] = {}
    overlay = picture.whole
    for id, decoded in model.decoded(raw, i, picture.whole).items():
        task = model.tasks[id]
        numbers[id] = {k: v for k, v in decoded.items() if not isinstance(v, Tensor)}
        for value in decoded.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                with replacing(output / f"{stem}.{id}.npy") as handle:
                    np.save(handle, value.numpy())
                value = task.draw(picture.whole, decoded)
            if isinstance(value, Tensor):
                save_image(output / f"{stem}.{id}.png", value)
        if task.kind not in (None, "map"):  # these are pictures of their own
            overlay = task.draw(overlay, decoded)
    with replacing(output / f"{stem}.json") as handle:
        handle.write((json.dumps(numbers, indent=2) + "\n").encode())
    save_image(output / f"{stem}.overlay.png", overlay)
