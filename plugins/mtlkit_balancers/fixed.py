"""Weights chosen by hand."""

from collections.abc import Sequence

from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._by_task import weights_by_task


class Fixed(LossBalancer):
    """The sum of the losses, each times a constant.

    Args:
        weights: by task id, for instance ``seg=0.7,cls=0.1,bbox=0.2``; finite, 0 or more, one for
            every task and at least one above 0.

    Reference: none.

    Raises:
        ValueError: a task has no weight, a weight has no task, one is negative or not finite, or
            all are 0.
    """

    linear = True
    constants: Tensor

    def __init__(self, tasks: Sequence[str], /, *, weights: dict[str, float]) -> None:
        super().__init__(tasks)
        self.register_buffer("constants", weights_by_task("weights", weights, self.tasks))

    def weights(self, stats: StepStats) -> Tensor:
        """The constants of the active tasks: ``[A]``."""
        return self.constants[stats.index].to(stats.losses)
