"""Weights chosen by hand."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats


class Fixed(LossBalancer):
    """The sum of the losses, each times a constant.

    Args:
        weights: by task id, for instance ``seg=0.7,cls=0.1,bbox=0.2``; finite, 0 or more, one for
            every task and at least one above 0.

    Raises:
        ValueError: a task has no weight, a weight has no task, or a weight is negative.
    """

    linear = True
    constants: Tensor

    def __init__(self, tasks: Sequence[str], /, *, weights: dict[str, float]) -> None:
        super().__init__(tasks)
        if set(weights) != set(self.tasks):
            raise ValueError(
                f"weights are needed for exactly the tasks {', '.join(self.tasks)}, "
                f"but were given for {', '.join(weights) or 'none'}"
            )
        values = torch.tensor([weights[task] for task in self.tasks], dtype=torch.float64)
        if not (values.isfinite().all() and (values >= 0).all() and values.any()):
            raise ValueError(f"weights must be finite, 0 or more and not all 0, but are {weights}")
        self.register_buffer("constants", values)

    def weights(self, stats: StepStats) -> Tensor:
        """The constants of the active tasks: ``[A]``."""
        return self.constants[stats.index].to(stats.losses)
