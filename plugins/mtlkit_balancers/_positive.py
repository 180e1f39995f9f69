"""Losses that may be divided by."""

from torch import Tensor

SMALLEST = 1e-8


def positive(losses: Tensor) -> Tensor:
    """``losses``, at least 1e-8, so that their reciprocals and logarithms are finite.

    Losses are 0 or more. A negative one is not refused: to look for it would be to wait for the
    device at every step.
    """
    return losses.clamp(min=SMALLEST)
