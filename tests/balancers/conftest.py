from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def _global_generator_untouched() -> Iterator[None]:
    """Fails a test that draws from torch's global generator, or seeds it."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)
