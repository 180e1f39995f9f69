"""Picture files: decode, turn upright, convert, check."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mtlkit import DataError, to_rgb

Pixels = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What is decoded, whatever a file is called: Pillow hands some other formats to programs."""
LARGEST = 89_478_485
"""Pixels of a picture, Pillow's limit for one of 256 MiB: a file of some bytes may claim more."""
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""


@dataclass(frozen=True)
class Photo:
    """A picture as the viewer means it to be seen, upright.

    Args:
        pixels: RGB uint8 [H, W, 3].
        size: height and width of the picture in its file.
        step: how many of the file's pixels, in each direction, one of ``pixels`` stands for:
            pixel i for those from ``i * step`` on.
    """

    pixels: Pixels
    size: tuple[int, int]
    step: int = 1

    def mask(self, mask: Pixels) -> Pixels:
        """The mask [H, W] of the file's picture, for ``pixels``: what is in the middle of each."""
        if self.step == 1:
            return mask
        rows, columns = (
            np.minimum(np.arange(length) * self.step + self.step // 2, full - 1)
            for length, full in zip(self.pixels.shape, self.size, strict=False)
        )
        shrunk: Pixels = mask[rows[:, None], columns]
        return shrunk


def read_image(path: Path, at_least: tuple[int, int] | None = None, /) -> Photo:
    """A picture; of a much larger JPEG, as many pixels as are wanted.

    Transparency lies on white, 16 bits are scaled to 8, of an animation the first frame counts.

    A JPEG decoder can leave out the finest of the frequencies that a JPEG consists of, which gives
    the picture at a half, a quarter or an eighth of its size for a part of the work. That is close
    to the mean of the pixels that each one stands for: on photographs within 2 grey levels on
    average; single pixels of hard edges differ by more.

    Args:
        path: of the file.
        at_least: height and width of the smallest picture that is wanted; None is the file's own.

    Raises:
        DataError: the file is no picture or cannot be decoded.
    """
    with opened(path) as image:
        orientation = _orientation(image)
        upright = UPRIGHT.get(orientation)
        width, height = image.size
        step = _shrink(image, at_least, orientation) if at_least else 1
        rgb = to_rgb(image)
        pixels = np.array(rgb if upright is None else rgb.transpose(upright))
    return Photo(pixels, (width, height) if orientation >= 5 else (height, width), step)


def _shrink(image: Image.Image, at_least: tuple[int, int], orientation: int) -> int:
    """Have a JPEG decoded at a part of its size; returns how many pixels become one.

    The last pixel of a row may stand for fewer: it must be the last one upright, too.
    """
    if image.format != "JPEG":
        return 1
    height, width = reversed(at_least) if orientation >= 5 else at_least
    for step in (8, 4, 2):
        whole = not (image.width % step or image.height % step)
        fits = image.height // step >= height and image.width // step >= width
        if fits and (whole or orientation == 1):
            image.draft(None, (image.width // step, image.height // step))
            return step
    return 1


def read_mask(path: Path, /) -> Pixels:
    """Class ids uint8 [H, W]; of a palette picture the indices."""
    with opened(path) as image:
        upright = UPRIGHT.get(_orientation(image))
        ids = np.array(image if upright is None else image.transpose(upright))
        bands = image.getbands()
    if bands[-1:] == ("A",):
        ids = ids[..., : len(bands) - 1]
    if ids.ndim == 3:
        if len(bands) > 2 and (bands[:3] != ("R", "G", "B") or (ids != ids[..., :1]).any()):
            raise DataError(f"{path}: a colour picture; a mask holds one class id per pixel")
        ids = ids[..., 0]
    if ids.dtype.kind == "f" or ids.min() < 0 or ids.max() > 255:
        raise DataError(
            f"{path}: holds {ids.min():g} to {ids.max():g}; class ids are whole numbers, 0 to 255"
        )
    return ids.astype(np.uint8)


def check_image(path: Path, /) -> tuple[int, int]:
    """Decode a picture as cheaply as its format allows: height and width, upright."""
    with opened(path) as image:
        width, height = image.size
        sideways = _orientation(image) >= 5
        image.draft("L", (1, 1))
        image.load()
        to_rgb(image.crop((0, 0, 1, 1)))
    return (width, height) if sideways else (height, width)


def picture_size(path: Path, /) -> tuple[int, int]:
    """Height and width of a picture, upright, from its header."""
    with opened(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def picture_pixels(path: Path, /) -> Pixels:
    """A picture RGB uint8 [H, W, 3]."""
    return read_image(path).pixels


def picture_classes(number: int, void: int, path: Path, /) -> Pixels:
    """Class ids uint8 [H, W] from 0 to ``number`` - 1; 255 where the file has ``void`` or 255."""
    mask = read_mask(path)
    found = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if strange := [id for id in found.tolist() if id >= number and id not in (void, 255)]:
        raise DataError(
            f"{path}: class id {strange[0]} is out of range; there are {number} classes, and "
            f"{void} is 'not labelled'"
        )
    return np.where(mask < number, mask, np.uint8(255))


def check_size(height: int, width: int, /) -> None:
    """Refuse to make room for a picture that cannot be meant.

    Raises:
        ValueError: it has no pixels or too many.
    """
    if not 0 < height * width <= LARGEST:
        raise ValueError(
            f"{width}x{height} pixels, a decompression bomb; cut it or scale it down"
            if height * width
            else "no pixels"
        )


def in_parallel(check: Callable[[Item], Result], items: Iterable[Item], /) -> list[Result]:
    """What ``check`` returns for each item, in order, by a pool of threads."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(check, items))


def files_in(folder: Path, suffixes: Iterable[str], /) -> list[Path]:
    """All files with those suffixes below a folder, hidden ones left out, sorted."""
    known = tuple(suffixes)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in known and not path.name.startswith(".") and path.is_file()
    )


@contextmanager
def noting(faults: dict[str, str], what: str, /) -> Iterator[None]:
    """Keep the text of a :class:`DataError` under ``what`` and go on."""
    try:
        yield
    except DataError as error:
        faults[what] = str(error)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture whose pixels are not decoded yet; what it then raises becomes a ``DataError``."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            check_size(image.height, image.width)
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # Pillow's decoders raise nearly every kind on broken files
        raise DataError(f"{path}: cannot be decoded ({_reason(error, path)})") from error


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        if not path.stat().st_size:
            return "the file is empty"
        return "not a picture in a known format"
    return str(error).replace(str(path), path.name) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        found = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF data is common, and no reason to refuse the picture
        return 1
    return found if found in UPRIGHT else 1


def described(size: tuple[int, ...], /) -> str:
    """Height and width as people write a picture's size."""
    return f"{size[1]}x{size[0]}"
