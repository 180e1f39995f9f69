"""What the fixture ``install`` is."""

from collections.abc import Callable
from pathlib import Path

Install = Callable[..., Path]
"""``install(distribution, source, *, modules={})``: the folder to have on the path."""
