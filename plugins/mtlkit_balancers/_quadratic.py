"""The least v'Gv with v at or above a bound."""

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 1e-13
"""How far below 0 an entry that should be 0 or more may lie, relative to the largest."""
PATIENCE = 3
STEPS = 200


@dataclass(frozen=True)
class Projection:
    """``weights_NA``, the number of linear systems solved, and 1 if they were not enough."""

    weights_NA: Tensor
    iterations: int
    failures: int


def dual_cone(
    gramian_AA: Tensor, bounds_NA: Tensor, *, norm_eps: float, reg_eps: float
) -> Projection:
    """For each row u of the bounds, the v >= u with the least v'Gv.

    J'v is then what of J'u does not conflict with any task: its projection on the dual cone of
    the tasks' gradients.

    Args:
        gramian_AA: positive semi-definite up to rounding; its trace is made 1.
        bounds_NA: of the order of 1.
        norm_eps: trace at or below which the Gramian is taken for 0.
        reg_eps: added to the diagonal afterwards.
    """
    trace = float(gramian_AA.trace())
    known = trace > norm_eps
    matrix_AA = gramian_AA / trace if known else torch.zeros_like(gramian_AA)
    matrix_AA = (matrix_AA + matrix_AA.T) / 2
    matrix_AA.diagonal().add_(reg_eps)
    return _at_least(matrix_AA, bounds_NA)


def _at_least(matrix_AA: Tensor, bounds_NA: Tensor) -> Projection:
    """The N problems for a positive definite matrix, all at once, by exchanging their active sets.

    An entry is either at its bound or free, where the gradient must be 0. All that turn out wrong
    change sides; if that does not help for a while, only the last one does, which always ends
    (Judice and Pires, 1994).
    """
    size = len(matrix_AA)
    gradient_NA = bounds_NA @ matrix_AA
    excess_NA = torch.zeros_like(bounds_NA)
    free_NA = torch.zeros_like(bounds_NA, dtype=torch.bool)
    identity_AA = torch.eye(size, dtype=matrix_AA.dtype)
    fewest_N = torch.full((len(bounds_NA),), size + 1)
    patience_N = torch.full_like(fewest_N, PATIENCE)
    slope_NA = gradient_NA
    for iteration in range(STEPS):
        rounding_N1 = ROUNDING * (1 + excess_NA.abs().amax(1, keepdim=True))
        wrong_NA = torch.where(free_NA, excess_NA, slope_NA) < -rounding_N1
        count_N = wrong_NA.sum(1)
        if not count_N.any():
            return Projection(bounds_NA + excess_NA.clamp(min=0), iteration, failures=0)
        better_N = count_N < fewest_N
        fewest_N = torch.minimum(fewest_N, count_N)
        patience_N = torch.where(better_N, PATIENCE, patience_N - 1)
        last_NA = wrong_NA & (wrong_NA.flip(1).cumsum(1).flip(1) == 1)
        free_NA = free_NA ^ torch.where((patience_N >= 0)[:, None], wrong_NA, last_NA)
        both_NAA = free_NA[:, :, None] & free_NA[:, None, :]
        systems_NAA = torch.where(both_NAA, matrix_AA, identity_AA)
        excess_NA = torch.linalg.solve(systems_NAA, -gradient_NA * free_NA)
        slope_NA = gradient_NA + excess_NA @ matrix_AA
    return Projection(bounds_NA + excess_NA.clamp(min=0), STEPS, failures=1)
