"""Fair resource allocation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._newton import positive_solution


class FairGrad(LossBalancer):
    """The tasks share the step as a fair network shares its bandwidth.

    The weights solve G w = w^(-1/alpha). With ``alpha`` 1, the default, this is Nash-MTL without
    its limit on the length of the step; the authors' scripts use 2 in places. The larger ``alpha``
    is, the more the task that gains least counts. The tasks' unit matters to the weights.

    The minimum is found by Newton's method; the authors' least squares may stop short of it.
    Opposed tasks and tasks without a gradient are treated as by Nash-MTL.

    Args:
        alpha: of alpha-fairness, from 0.05 to 10, or 0, where all weights are 1.

    Raises:
        ValueError: ``alpha`` is outside.

    Reference: Ban, Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024,
        arXiv 2402.15638, algorithm 1.
    """

    needs = "gramian"

    def __init__(self, tasks: Sequence[str], /, *, alpha: float = 1.0) -> None:
        super().__init__(tasks)
        if not (alpha == 0 or 0.05 <= alpha <= 10):
            raise ValueError(f"alpha must be 0 or from 0.05 to 10, but is {alpha}")
        self.alpha = alpha

    def weights(self, stats: StepStats) -> Tensor:
        """The fair weights: ``[A]``, above 0."""
        assert stats.gramian is not None
        if self.alpha == 0:
            return torch.ones_like(stats.losses)
        found = positive_solution(stats.gramian.tolist(), power=1 / self.alpha)
        self.report = {"iterations": found.iterations, "failures": found.failures}
        return torch.tensor(found.weights, dtype=torch.float64).to(stats.losses)
