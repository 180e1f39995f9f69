"""Student's t: how far a mean of a few values may be off."""

import math
from functools import cache

CONFIDENCE = 0.95


@cache
def t_quantile(freedom: int) -> float:
    """What Student's t stays within with 95 % probability, on both sides of 0.

    Args:
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, 20.0  # at 1 degree of freedom it is 12.7
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < CONFIDENCE else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """Probability that Student's t lies in [-t, t]: the finite series for whole degrees.

    Reference: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for i in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * i / (i + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
