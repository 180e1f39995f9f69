"""Multiple-gradient descent."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._simplex import min_norm

Norm = Literal["none", "l2", "loss", "loss+"]


class MGDA(LossBalancer):
    """The shortest vector in the convex hull of the tasks' gradients.

    The weights are 0 or more and sum to 1. At a Pareto-stationary point the step is zero; a task
    whose gradient is zero makes it one, and takes all the weight.

    As in the authors' code, normalised gradients decide the weights, and the weights multiply the
    raw losses; LibMTL multiplies the normalised gradients. Unlike there, the optimum is exact: a
    closed form for two tasks, else an active-set method in place of Frank-Wolfe.

    Args:
        norm: what each gradient is divided by: ``none``, its length (``l2``), its ``loss``, or
            both (``loss+``). Without, the task with the smallest gradient dominates. Losses
            count by size, and as at least 1e-8 of the largest.

    Raises:
        ValueError: ``norm`` is none of these.

    Reference: Sener, Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018,
        arXiv 1810.04650, eq. 3; the norms are in the authors' code only.
    """

    needs = "gramian"

    def __init__(self, tasks: Sequence[str], /, *, norm: Norm = "none") -> None:
        super().__init__(tasks)
        if norm not in get_args(Norm):
            raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, but is {norm!r}")
        self.norm = norm

    def weights(self, stats: StepStats) -> Tensor:
        """Eq. 3 over the active tasks: ``[A]``."""
        assert stats.gramian is not None
        gramian_AA = stats.gramian
        if self.norm != "none":
            divisors = self._divisors(stats.losses, gramian_AA)
            gramian_AA = gramian_AA / divisors[:, None] / divisors
        weights, iterations, failures = min_norm(gramian_AA.tolist())
        self.report = {"iterations": iterations, "failures": failures}
        return torch.tensor(weights, dtype=stats.gramian.dtype)

    def _divisors(self, losses: Tensor, gramian_AA: Tensor) -> Tensor:
        """``[A]``, above 0."""
        divisors = torch.ones_like(losses)
        if self.norm in ("loss", "loss+"):
            sizes = losses.abs()
            divisors = divisors * sizes.clamp(min=1e-8 * float(sizes.max()))
        if self.norm in ("l2", "loss+"):
            divisors = divisors * gramian_AA.diagonal().clamp(min=0).sqrt()
        return torch.where(divisors > 0, divisors, 1.0)
