"""Excess risks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtlkit import Columns, LossBalancer, StepStats
from mtlkit_balancers._columns import parts


class ExcessMTL(LossBalancer):
    """Tasks far from convergence get the larger weights: those that could still fall the most.

    How far is estimated by g'H^-1 g, with the root of the summed squares of all gradients so far
    for the curvature H, and relative to the same in the task's first step. The weights are
    multiplied by exp(lr excess) in every step. They are A in sum, as in the authors' code.

    The authors add 1e-7 to the squares. That is no detail: derivatives with respect to a single
    parameter are often below its root, 3e-4, and then the unit of a loss matters. Here nothing is
    added unless ``eps`` says so. A first step without any gradient does not count as first.

    In steps without a task's labels what is known of it stays. Memory: one more vector of the
    shared parameters per task.

    Args:
        lr: step of the weights' logarithms, 0 or more.
        eps: added to the sums of squares, 0 or more; 1e-7 in the authors' code.

    Raises:
        ValueError: ``lr`` or ``eps`` is negative or not finite.

    Reference: He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024,
        arXiv 2402.02009, eq. 6, 7 and 9.
    """

    needs = "columns"
    log_shares: Tensor
    first: Tensor

    def __init__(self, tasks: Sequence[str], /, *, lr: float = 1e-2, eps: float = 0.0) -> None:
        super().__init__(tasks)
        for name, value in {"lr": lr, "eps": eps}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more and finite, but is {value}")
        self.lr = lr
        self.eps = eps
        count = len(self.tasks)
        self.register_buffer("log_shares", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("first", torch.zeros(count, dtype=torch.float64))

    def combine(self, rows_Ap: Tensor, stats: StepStats, columns: Columns) -> Tensor:
        """The weighted sum of the gradients: ``[p]``."""
        excess_A = self._excess(rows_Ap, stats, columns)
        first_A = self.first[stats.index].to(excess_A)
        first_A = torch.where(first_A > 0, first_A, excess_A)
        self.first[stats.index] = first_A.to(self.first)
        ratio_A = torch.where(first_A > 0, excess_A / first_A, 1.0)
        before_A = self.log_shares[stats.index]
        after_A = before_A + self.lr * ratio_A.to(before_A)
        # The sum of the active tasks' shares stays as it was.
        self.log_shares[stats.index] = after_A + before_A.logsumexp(0) - after_A.logsumexp(0)
        return self.weights(stats).to(rows_Ap) @ rows_Ap

    def weights(self, stats: StepStats) -> Tensor:
        """The shares of the active tasks alone: ``[A]``, above 0, sums to A."""
        shares_A = torch.softmax(self.log_shares[stats.index], 0)
        return (len(shares_A) * shares_A).to(stats.losses)

    def _excess(self, rows_Ap: Tensor, stats: StepStats, columns: Columns) -> Tensor:
        """Add the gradients to the curvatures; ``[A]`` g'H^-1 g on the CPU."""
        roots_Tp = columns.state("root")  # of the sums of squares, which would leave float32
        excess_A = torch.zeros(len(rows_Ap), dtype=torch.float64, device=rows_Ap.device)
        for i, task in enumerate(stats.index.tolist()):
            torch.hypot(roots_Tp[task], rows_Ap[i], out=roots_Tp[task])
            for part in parts(rows_Ap):
                row_p, root_p = rows_Ap[i, part].double(), roots_Tp[task, part].double()
                if self.eps:
                    root_p = (root_p.square() + self.eps).sqrt()
                excess_A[i] += (row_p.square() / root_p.clamp(min=1e-300)).sum()
        return columns.sum(excess_A).cpu()
