"""NumPy's files, one array each: numbers alone are read, and no more than the file holds."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlkit import DataError

from ._images import Pixels, check_size

Floats = NDArray[np.float32]
UNLABELLED = (-1, 255)
OVERSHOOT = 0.05
"""By which a picture that was resized smoothly may leave the range from 0 to 1."""
LARGEST = 1.05
"""Beyond it a number is not of a unit vector, however that was averaged and rounded."""
SHORTEST = 1e-3
"""A normal that became shorter by averaging has no direction left."""


def open_npy(path: Path, /) -> NDArray[Any]:
    """The array of a file. Only its header is read: the numbers are, when they are looked at.

    Raises:
        DataError: it is no array of numbers, or claims more of them than the file holds.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # NumPy raises nearly every kind on strangers' headers
        raise DataError(f"{path}: cannot be read as an array ({_reason(error)})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path}: an archive of arrays; a file holds one")
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: holds {array.dtype}; needs numbers")
    return array


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def npy_size(channels: int, path: Path, /) -> tuple[int, int]:
    """Height and width of an array [H, W, channels], or [H, W] for one channel."""
    shape = open_npy(path).shape
    if shape[2:] != (channels,) and not (channels == 1 and len(shape) == 2):
        wanted = "[H, W] or [H, W, 1]" if channels == 1 else f"[H, W, {channels}]"
        raise DataError(f"{path}: has shape {list(shape)}; needs {wanted}")
    try:
        check_size(shape[0], shape[1])
    except ValueError as error:
        raise DataError(f"{path}: has {error}") from error
    return shape[0], shape[1]


def npy_image(path: Path, /) -> Pixels:
    """A picture uint8 [H, W, 3], of bytes or of floats from 0 to 1."""
    values = open_npy(path)
    if values.dtype == np.uint8:
        return np.array(values)
    low, high = float(values.min()), float(values.max())
    if not (values.dtype.kind == "f" and low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        raise DataError(
            f"{path}: holds {values.dtype} from {low:g} to {high:g}; a picture holds floats from "
            "0 to 1, or uint8"
        )
    levels: Pixels = np.rint(values.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)
    return levels


def npy_classes(number: int, path: Path, /) -> Pixels:
    """Classes uint8 [H, W] from 0 to ``number`` - 1; 255 where -1 or 255 is not labelled."""
    values = _plane(path)
    known = (values >= 0) & (values < number)
    if values.dtype.kind == "f":
        known &= values == np.floor(values)
    if len(strange := values[~(known | np.isin(values, UNLABELLED))]):
        raise DataError(
            f"{path}: holds {strange[0]:g}; classes are 0 to {number - 1}, and -1 or 255 where "
            "nothing is labelled"
        )
    return np.where(known, values, 255).astype(np.uint8)


def npy_depth(path: Path, /) -> Floats:
    """Depth, or its inverse, [1, H, W]; 0 where the file has no finite number above 0."""
    values = to_float(_plane(path))
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(0))[None]


def npy_normals(path: Path, /) -> Floats:
    """Unit vectors [3, H, W]; 0 where the file has 0 or a number that is not finite."""
    values = np.moveaxis(to_float(open_npy(path)), -1, 0)
    values = np.where(np.isfinite(values).all(0), values, np.float32(0))
    if (largest := np.abs(values).max(initial=0)) > LARGEST:
        raise DataError(f"{path}: holds {largest:g}; normals have length 1, or 0 where missing")
    lengths = np.sqrt((values * values).sum(0))
    measured = lengths > SHORTEST
    return np.where(measured, values / np.where(measured, lengths, 1), np.float32(0))


def _plane(path: Path) -> NDArray[Any]:
    values = open_npy(path)
    return values[..., 0] if values.ndim == 3 else values


def to_float(values: NDArray[Any], /) -> Floats:
    """As float32 in native order; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
