from collections.abc import Callable

import pytest
from torch import Tensor, nn


@pytest.fixture
def counted() -> Callable[[nn.Module], list[Tensor]]:
    """Collects the first input of each call of a module."""

    def count(module: nn.Module) -> list[Tensor]:
        calls: list[Tensor] = []
        module.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0]))
        return calls

    return count
