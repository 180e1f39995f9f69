"""Nash bargaining."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._newton import positive_solution


class NashMTL(LossBalancer):
    """The tasks bargain: the step that maximises the product of their gains.

    The weights solve G a = 1 / a, so a task's weight is inverse to its gradient's length, and the
    step's length is always the root of the number of tasks, before ``max_norm``. Opposed tasks have
    no bargain; where that would take weights 1e4 times those of orthogonal tasks, 1e-9 of each
    task's product with itself is added, and more if rounding asks for it. A task without a gradient
    gets the mean of the others' weights.

    The equation is solved by Newton's method. The authors' sequence of convex programs may end far
    from its solution when tasks conflict, and keeps the last weights when it fails. They shorten
    the shared parameters' gradient alone; here the weights are, and so the heads' gradients too.

    Args:
        max_norm: greatest length of the step's gradient on the shared parameters; 0 is no limit.

    Raises:
        ValueError: ``max_norm`` is negative or not finite.

    Reference: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
        arXiv 2202.01017, algorithm 1.
    """

    needs = "gramian"

    def __init__(self, tasks: Sequence[str], /, *, max_norm: float = 1.0) -> None:
        super().__init__(tasks)
        if not 0 <= max_norm < math.inf:
            raise ValueError(f"max_norm must be 0 or more and finite, but is {max_norm}")
        self.max_norm = max_norm

    def weights(self, stats: StepStats) -> Tensor:
        """The solution of the bargaining: ``[A]``, above 0."""
        assert stats.gramian is not None
        found = positive_solution(stats.gramian.tolist(), power=1.0)
        self.report = {"iterations": found.iterations, "failures": found.failures}
        weights = torch.tensor(found.weights, dtype=stats.gramian.dtype)
        norm = math.sqrt(max(float(weights @ stats.gramian @ weights), 0.0))
        if norm > self.max_norm > 0:
            weights *= self.max_norm / norm
        return weights.to(stats.losses)
