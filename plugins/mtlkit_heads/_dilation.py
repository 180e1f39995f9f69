"""Dilations of the DeepLab decoders."""

from collections.abc import Sequence


def dilations(rates: Sequence[int], depth: int) -> list[int]:
    """``rates``, given for stride 8, for a level of stride ``2**depth``: the same in the image.

    Raises:
        ValueError: they are not three positive numbers.
    """
    if len(rates) != 3 or min(rates) < 1:
        raise ValueError(
            f"rates must be three positive numbers, but got {', '.join(map(str, rates)) or 'none'}"
        )
    return [max(1, rate * 8 // 2**depth) for rate in rates]
