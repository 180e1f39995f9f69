"""Positive solutions of G w = w^-p, by Newton's method."""

import math
from dataclasses import dataclass
from operator import mul

Row = list[float]
Matrix = list[Row]

RIDGES = (0.0, 1e-9, 1e-7, 1e-5, 1e-3, 1e-1)
"""Added to the tasks' products with themselves, relative to them. Without any, opposed tasks have
no solution; the larger ones are for what rounding in float32 leaves of a Gramian."""
CEILING = 1e8
"""Of b^(1 + p), for orthogonal tasks 1; above, tasks count as opposed."""
ZERO = 1e-24
"""Squared length, relative to the longest gradient's, below which a gradient is no gradient."""
PRECISION = 1e-11
"""Relative residual at which the solution is found; rounding is granted on top."""
ROUNDING = 4e-15
STEPS = 200


@dataclass(frozen=True)
class Positive:
    """``weights [A]`` above 0, the number of Newton steps, and 1 if they were not enough."""

    weights: Row
    iterations: int
    failures: int


def positive_solution(gramian_AA: Matrix, power: float) -> Positive:
    """The w above 0 with G w = w^-p, the minimum of w'Gw/2 - sum w^(1-p)/(1-p), which is convex.

    Opposed tasks, whose weights would be infinite, get large ones. A task without a gradient,
    whose weight would be infinite, gets the mean of the others', so that its head still learns;
    without any gradient all weights are 1.

    Args:
        gramian_AA: positive semi-definite up to rounding.
        power: p, above 0.
    """
    squares = [row[i] for i, row in enumerate(gramian_AA)]
    moving = [i for i, square in enumerate(squares) if square > ZERO * max(squares)]
    if not moving:
        return Positive([1.0] * len(squares), iterations=0, failures=0)
    # In these units the solution for orthogonal tasks is 1, whatever the lengths.
    units = [squares[i] ** (-1 / (1 + power)) for i in moving]
    matrix_MM = [
        [unit * gramian_AA[i][j] * other for j, other in zip(moving, units, strict=True)]
        for i, unit in zip(moving, units, strict=True)
    ]
    targets = [unit ** (1 - power) for unit in units]
    found, iterations, failures = [1.0] * len(moving), 0, 1
    for ridge in RIDGES:
        for i, (row, target) in enumerate(zip(matrix_MM, targets, strict=True)):
            row[i] = target * (1 + ridge)  # without a ridge the target is what it is already
        result = _newton(matrix_MM, targets, power, math.inf if ridge else CEILING)
        if result is not None:
            found, iterations, failures = result
            break
    weights = [sum(map(mul, units, found)) / len(moving)] * len(squares)
    for i, unit, entry in zip(moving, units, found, strict=True):
        weights[i] = unit * entry
    return Positive(weights, iterations, failures)


def _newton(
    matrix_MM: Matrix, targets: Row, power: float, ceiling: float
) -> tuple[Row, int, int] | None:
    """The b above 0 with K b = c b^-p, with the number of iterations and of failures.

    None as soon as b^(1+p) is above the ceiling, or the function is seen not to be convex.
    """
    sizes_MM = [[abs(entry) for entry in row] for row in matrix_MM]

    def forces(point: Row) -> Row:
        return [c * b**-power for c, b in zip(targets, point, strict=True)]

    def slopes(point: Row, pulls: Row) -> Row:
        return [_dot(row, point) - pull for row, pull in zip(matrix_MM, pulls, strict=True)]

    def worst(slope: Row, pull: Row) -> float:
        return max(abs(s) / f for s, f in zip(slope, pull, strict=True))

    point = [1.0] * len(targets)
    pull = forces(point)
    slope = slopes(point, pull)
    for iteration in range(STEPS):
        if all(
            abs(s) <= PRECISION * f + ROUNDING * _dot(row, point)
            for s, f, row in zip(slope, pull, sizes_MM, strict=True)
        ):
            return point, iteration, 0
        curvature = [power * f / b for f, b in zip(pull, point, strict=True)]
        move = solve(matrix_MM, [-s for s in slope], ridge=curvature)
        if move is None:
            return None
        shrink = max(-m / b for m, b in zip(move, point, strict=True))
        length = min(1.0, 0.99 / shrink) if shrink > 0 else 1.0
        descent, before = -_dot(slope, move), worst(slope, pull)
        for _ in range(50):
            trial = [b + length * m for b, m in zip(point, move, strict=True)]
            pull = forces(trial)
            slope = slopes(trial, pull)
            if _dot(slope, move) <= 0.5 * descent:  # not far beyond the minimum on the line
                break
            if worst(slope, pull) <= 0.5 * before <= 0.01:  # in the end only this tells
                break
            length /= 2
        point = trial
        if max(point) ** (1 + power) > ceiling:
            return None
    return point, STEPS, 1


def solve(matrix_MM: Matrix, right: Row, ridge: Row) -> Row | None:
    """x with (K + diag(ridge)) x = right, by Cholesky's factors; None if not positive definite.

    In plain floats: for so few tasks a call into torch takes longer than the sums.
    """
    lower_MM: Matrix = []
    forward: Row = []
    for i, row in enumerate(matrix_MM):
        factor: Row = []
        for j, done in enumerate(lower_MM):
            factor.append((row[j] - _dot(factor, done)) / done[j])
        pivot = row[i] + ridge[i] - _dot(factor, factor)
        if not pivot > 0:
            return None
        factor.append(math.sqrt(pivot))
        forward.append((right[i] - _dot(factor, forward)) / factor[i])
        lower_MM.append(factor)
    solution = [0.0] * len(right)
    for i in reversed(range(len(right))):
        later = sum(lower_MM[k][i] * solution[k] for k in range(i + 1, len(right)))
        solution[i] = (forward[i] - later) / lower_MM[i][i]
    return solution


def _dot(one: Row, other: Row) -> float:
    """Over as many entries as the shorter has."""
    return sum(map(mul, one, other), 0.0)
