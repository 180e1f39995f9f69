"""A balancer, for example: ``mtlkit train --balancer my-plugin``."""

from collections.abc import Sequence

from torch import Tensor

from mtlkit import LossBalancer, StepStats


class MyPlugin(LossBalancer):
    """The larger a task's loss, the smaller its weight; the weights' mean is 1.

    Args:
        power: 0 gives equal weights, 1 makes all weighted losses alike.
    """

    def __init__(self, tasks: Sequence[str], /, *, power: float = 1.0) -> None:
        super().__init__(tasks)
        self.power = power

    def weights(self, stats: StepStats) -> Tensor:
        """One weight per task that has a label in this step."""
        inverse = stats.losses.clamp(min=1e-8) ** -self.power
        return inverse / inverse.mean()
