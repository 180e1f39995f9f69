"""Quadratic programs over weights that are 0 or more, on the tasks' Gramian.

In plain floats: for 2 to 20 tasks a tensor's overhead is many times its arithmetic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import mul

Row = list[float]
Matrix = list[Row]

ROUNDING = 2.0**-52


@dataclass(frozen=True)
class Minimum:
    """Where a quadratic program over weights of 0 or more is least.

    Args:
        point: ``[A]``, the minimiser.
        free: positions of the entries that may move.
        iterations: linear systems solved.
        failures: 1 if it was not reached, else 0.
    """

    point: Row
    free: list[int]
    iterations: int
    failures: int = 0


def dot(first: Sequence[float], second: Sequence[float]) -> float:
    """Inner product."""
    return sum(map(mul, first, second), 0.0)


def quadratic(matrix_AA: Matrix, point: Row) -> float:
    """u'Mu of a positive semidefinite M."""
    return max(dot(point, [dot(row, point) for row in matrix_AA]), 0.0)


def lengths_and_cosines(gramian_AA: Matrix) -> tuple[Row, Matrix]:
    """Lengths ``[A]`` of the rows behind a Gramian and their cosines, 0 for a zero row."""
    lengths = [math.sqrt(max(row[i], 0.0)) for i, row in enumerate(gramian_AA)]
    inverse = [1 / length if length > 0 else 0.0 for length in lengths]
    cosines_AA = [
        [min(max(entry * i * j, -1.0), 1.0) for entry, j in zip(row, inverse, strict=True)]
        for row, i in zip(gramian_AA, inverse, strict=True)
    ]
    return lengths, cosines_AA


def solve(matrix_AA: Matrix, linear: Row, free: Sequence[int]) -> Row:
    """u with Mu = q in the free entries and 0 elsewhere, by Cholesky's factors.

    A pivot that rounding may have made up counts as large as the rounding: where M is singular, u
    goes far along a direction that M does not see.
    """
    factors_AA: Matrix = []
    values: Row = []
    for i in free:
        row: Row = []
        for j, other in zip(free, factors_AA, strict=False):
            row.append((matrix_AA[i][j] - dot(row, other)) / other[-1])
        least = 4 * len(free) * ROUNDING * matrix_AA[i][i]
        pivot = math.sqrt(max(matrix_AA[i][i] - dot(row, row), least))
        values.append((linear[i] - dot(row, values)) / pivot)
        factors_AA.append([*row, pivot])
    point = [0.0] * len(linear)
    for i, row in zip(reversed(free), reversed(factors_AA), strict=True):
        point[i] = value = values.pop() / row[-1]
        values = [v - value * entry for v, entry in zip(values, row, strict=False)]
    return point


def minimise(matrix_AA: Matrix, linear: Row, start: Row) -> Minimum:
    """Least point of u'Mu/2 - q'u over u of 0 or more: a primal active-set method.

    Args:
        matrix_AA: M, positive semidefinite, its diagonal of order 1 and above 0 where q is.
        linear: ``[A]`` q.
        start: ``[A]`` u to start from, 0 or more.
    """
    point, free = start, [i for i, entry in enumerate(start) if entry > 0]
    limit = 10 * len(linear) + 10
    best = Minimum(point, free, limit, failures=1)
    largest = -math.inf
    for iterations in range(1, limit + 1):
        goal = solve(matrix_AA, linear, free)
        room = {i: point[i] / (point[i] - goal[i]) for i in free if goal[i] < 0}
        if room:
            step = min(room.values())
            point = [p + step * (g - p) for p, g in zip(point, goal, strict=True)]
            free = [i for i in free if room.get(i, math.inf) > step]
            point = [point[i] if i in free else 0.0 for i in range(len(point))]
            continue
        gain = dot(linear, goal)  # minus twice the objective: rises unless rounding is all there is
        if gain <= largest:
            return replace(best, iterations=iterations, failures=0)
        point, largest, best = goal, gain, replace(best, point=goal, free=free)
        entering, steepest = -1, 0.0
        for i, row in enumerate(matrix_AA):
            slope = dot(row, point) - linear[i]
            if slope < steepest and i not in free:
                noise = 1e-13 * (abs(linear[i]) + sum(map(abs, map(mul, row, point))))
                if slope < -noise:
                    entering, steepest = i, slope
        if entering < 0:
            return Minimum(point, free, iterations)
        free = sorted([*free, entering])
    return best


def even(weights: Row, gramian_AA: Matrix) -> Row:
    """The same with the weights of equal gradients made equal: their share is arbitrary."""
    weights, left = list(weights), list(range(len(weights)))
    while left:
        first, *others = left
        noise = [4 * ROUNDING * abs(entry) for entry in gramian_AA[first]]
        same = [first]
        for i in others:
            rows = zip(gramian_AA[first], gramian_AA[i], noise, strict=True)
            if all(abs(entry - other) <= error for entry, other, error in rows):
                same.append(i)
        if len(same) > 1:
            mean = sum(weights[i] for i in same) / len(same)
            for i in same:
                weights[i] = mean
        left = [i for i in others if i not in same]
    return weights


def min_norm(gramian_AA: Matrix) -> tuple[Row, int, int]:
    """Weights w of 0 or more that sum to 1 with the least w'Gw.

    For more than two tasks: up to their sum, min-norm points are the minimisers of
    u'(C + bb')u/2 - b'u over u of 0 or more, with C the cosines, u = length * w and b = 1/length.
    In that form the lengths' disparity does no harm, and a minimum of 0 needs no special case.

    Returns:
        ``[A]``, the number of iterations (0 for a closed form) and of failures (0 or 1).
    """
    if len(gramian_AA) == 1:
        return [1.0], 0, 0
    if len(gramian_AA) == 2:
        (first, product), (_, second) = gramian_AA
        squared_distance = first + second - 2 * product
        share = (second - product) / squared_distance if squared_distance > 0 else 0.5
        share = min(max(share, 0.0), 1.0)
        return [share, 1 - share], 0, 0
    lengths, cosines_AA = lengths_and_cosines(gramian_AA)
    shortest = min(lengths)
    if shortest == 0:
        return [float(length == 0) / lengths.count(0.0) for length in lengths], 0, 0
    inverse = [shortest / length for length in lengths]
    matrix_AA = [
        [cosine + i * j for cosine, j in zip(row, inverse, strict=True)]
        for row, i in zip(cosines_AA, inverse, strict=True)
    ]
    least = minimise(matrix_AA, inverse, inverse)
    weights = list(map(mul, inverse, least.point))
    total = sum(weights)
    weights = even([weight / total for weight in weights], gramian_AA)
    return weights, least.iterations, least.failures
