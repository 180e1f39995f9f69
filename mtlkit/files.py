"""Files that are there whole or not at all, whatever happens while they are written."""

import os
from collections.abc import Callable
from pathlib import Path


def flush(path: Path) -> None:
    """Make sure that a file, or what a folder lists, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(file: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` make a new file, which then takes the place of ``file``."""
    fresh = file.with_name(file.name + ".new")
    try:
        write(fresh)
        flush(fresh)
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)  # what it takes may be what is missing on a full disk
        raise
    flush(file.parent)


def replace_text(file: Path, text: str) -> None:
    """Put ``text`` in the place of what ``file`` holds."""
    replace(file, lambda fresh: fresh.write_text(text, encoding="utf-8"))
