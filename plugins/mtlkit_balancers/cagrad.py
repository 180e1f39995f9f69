"""Conflict-averse gradient descent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import Literal, get_args

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats
from mtlkit_balancers._simplex import (
    ROUNDING,
    Matrix,
    Minimum,
    Row,
    dot,
    even,
    lengths_and_cosines,
    min_norm,
    minimise,
    quadratic,
    solve,
)

Rescale = Literal["none", "square", "linear"]

STATIONARY = 1e-12
"""Squared length of the min-norm point, relative to the shortest gradient's, taken for 0."""


class CAGrad(LossBalancer):
    """Average gradient, moved toward the worst-off task within a ball of radius ``c`` around it.

    The average is 1/A of the sum, as in the paper; the authors' code multiplies by the number of
    tasks. At a Pareto-stationary point no direction in the ball helps the worst-off task, and of
    those that harm none the one nearest to the average is taken, instead of a division by zero.
    Stationary is where the shortest convex combination is below 1e-6 of the shortest gradient.
    As in the authors' code, a task's own parameters get their raw gradient.

    Args:
        c: radius as a fraction of the average gradient's norm, in [0, 1). 0 is plain averaging.
        rescale: what the result is divided by: 1 (``none``), 1 + c^2 (``square``) or 1 + c
            (``linear``); 0, 1 and 2 in the authors' code.

    Raises:
        ValueError: ``c`` is outside [0, 1), or ``rescale`` none of these.

    Reference: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
        NeurIPS 2021, arXiv 2110.14048, eq. 4.
    """

    needs = "gramian"
    heads = "raw"

    def __init__(
        self, tasks: Sequence[str], /, *, c: float = 0.4, rescale: Rescale = "square"
    ) -> None:
        super().__init__(tasks)
        if not 0 <= c < 1:
            raise ValueError(f"c must be in [0, 1), but is {c}")
        if rescale not in get_args(Rescale):
            known = ", ".join(get_args(Rescale))
            raise ValueError(f"rescale must be one of {known}, but is {rescale!r}")
        self.c = c
        self.rescale = rescale

    def weights(self, stats: StepStats) -> Tensor:
        """Coefficients of the solution of eq. 4: ``[A]``."""
        assert stats.gramian is not None
        correction, iterations, failures = self._correction(stats.gramian.tolist())
        self.report = {"iterations": iterations, "failures": failures}
        scale = {"none": 1.0, "square": 1 + self.c**2, "linear": 1 + self.c}[self.rescale]
        weights = [(1 / len(correction) + added) / scale for added in correction]
        return torch.tensor(weights, dtype=stats.gramian.dtype)

    def _correction(self, gramian_AA: Matrix) -> tuple[Row, int, int]:
        """What is added to the average's coefficients ``[A]``, with iterations and failures.

        With m the progress of the worst-off task, the correction has the coefficients u of 0 or
        more with the least |g0 + J'u|^2/2 - m sum(u). Its length grows with m, so m is where it
        is the radius. Lengths are in units of the average's, m's of the shortest gradient's too.
        """
        lengths, cosines_AA = lengths_and_cosines(gramian_AA)
        products = [sum(row) / len(row) for row in gramian_AA]
        norm = math.sqrt(max(sum(products) / len(products), 0.0))
        if self.c == 0 or norm == 0:
            return [0.0] * len(lengths), 0, 0
        moving = [i for i, length in enumerate(lengths) if length > 0]
        shortest = min(lengths[i] for i in moving)
        inverse = [shortest / (length or math.inf) for length in lengths]
        products = [p / norm / (n or math.inf) for p, n in zip(products, lengths, strict=True)]
        found = minimise(cosines_AA, [-p for p in products], [0.0] * len(lengths))
        search = _Search(cosines_AA, inverse, products, self.c)
        if quadratic(cosines_AA, found.point) >= self.c**2:
            low, high = min(products[i] / inverse[i] for i in moving), 0.0
            found = search.run(found, low, high)
        elif len(moving) == len(lengths):  # a task without a gradient makes no progress
            weights, more, failures = min_norm(gramian_AA)
            least = [w / i for w, i in zip(weights, inverse, strict=True)]
            square = quadratic(cosines_AA, least)
            found = replace(found, iterations=found.iterations + more, failures=failures)
            if square > max(STATIONARY, ROUNDING * sum(least) ** 2):
                high = dot(least, products) + self.c * math.sqrt(square)  # weak duality
                found = search.run(replace(found, point=least), 0.0, high)
        scale = [norm / (length or math.inf) for length in lengths]
        return (
            even(list(map(mul, found.point, scale)), gramian_AA),
            found.iterations,
            found.failures,
        )


@dataclass(frozen=True)
class _Search:
    """For the progress m at which the correction is as long as the radius allows."""

    cosines_AA: Matrix
    inverse: Row
    products: Row
    radius: float

    def run(self, start: Minimum, low: float, high: float) -> Minimum:
        """The correction's coefficients in units of length, for an m in [low, high].

        By Newton steps from ``high``, exact as soon as the support is; else by halving.
        """
        progress, iterations, failures = high, start.iterations, start.failures
        point = start.point
        support: list[int] | None = None
        for _ in range(100):
            linear = [progress * i - p for i, p in zip(self.inverse, self.products, strict=True)]
            found = minimise(self.cosines_AA, linear, point)
            point, iterations = found.point, iterations + found.iterations
            failures = max(failures, found.failures)
            length = math.sqrt(quadratic(self.cosines_AA, point))
            narrow = high - low <= 4 * ROUNDING * max(abs(low), abs(high))
            if length > 0 and (found.free == support or narrow):
                point = [entry * self.radius / length for entry in point]
                return Minimum(point, found.free, iterations, failures)
            if length > self.radius:
                high = progress
            else:
                low = progress
            progress, support = self._newton(found, progress), found.free
            if not low <= progress <= high:
                progress, support = (low + high) / 2, None
        return Minimum(point, found.free, iterations, failures=1)

    def _newton(self, found: Minimum, progress: float) -> float:
        """Where the length is the radius if the support stays; NaN if nowhere."""
        rate = solve(self.cosines_AA, self.inverse, found.free)
        along = [dot(row, rate) for row in self.cosines_AA]
        half = dot(along, found.point)
        excess = quadratic(self.cosines_AA, found.point) - self.radius**2
        root = half**2 - dot(along, rate) * excess
        divisor = half + math.sqrt(max(root, 0.0))
        return progress - excess / divisor if root >= 0 and divisor > 0 else math.nan
