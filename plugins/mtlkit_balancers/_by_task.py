"""Options that are one number for each task."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def by_task(option: str, values: Mapping[str, float], tasks: Sequence[str]) -> Tensor:
    """``[T]`` float64, the numbers in the order of the tasks.

    Raises:
        ValueError: a task has no number, a number has no task, or one is not finite.
    """
    if set(values) != set(tasks):
        raise ValueError(
            f"{option} must name exactly the tasks {', '.join(tasks)}, "
            f"but names {', '.join(values) or 'none'}"
        )
    numbers = torch.tensor([values[task] for task in tasks], dtype=torch.float64)
    if not numbers.isfinite().all():
        raise ValueError(f"{option} must be finite, but is {dict(values)}")
    return numbers


def weights_by_task(option: str, values: Mapping[str, float], tasks: Sequence[str]) -> Tensor:
    """``[T]`` float64, the same for numbers that are 0 or more and not all 0.

    Raises:
        ValueError: as above, or a number is negative, or all are 0.
    """
    weights = by_task(option, values, tasks)
    if not ((weights >= 0).all() and weights.any()):
        raise ValueError(f"{option} must be 0 or more and not all 0, but is {dict(values)}")
    return weights
