import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "speed"))  # the plain networks


@pytest.fixture
def counted() -> Callable[[nn.Module], list[Tensor]]:
    """Collects the first input of each call of a module."""

    def count(module: nn.Module) -> list[Tensor]:
        calls: list[Tensor] = []
        module.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0]))
        return calls

    return count
