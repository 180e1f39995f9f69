import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mtlkit.api
import mtlkit.train

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="module")
def no_pictures() -> Iterator[None]:
    """Pictures and reports are slow, and not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mtlkit.train, "draw", lambda run: None)
        patch.setattr(mtlkit.api.report, "write_after", lambda folder, say: None)
        yield
