"""Independent component alignment."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mtlkit import LossBalancer, StepStats

Scale = Literal["min", "median", "rmse"]

ZERO = 1e-12
"""Eigenvalue, relative to the largest, taken for 0: what parallel float32 gradients leave."""


class AlignedMTL(LossBalancer):
    """The sum of the gradients after making their principal components equally long.

    The gradients are replaced by the nearest ones that are orthogonal and of one length, so that
    no task dominates or conflicts. Orthogonal gradients of one length are summed as they are. The
    weights may be negative. As in the authors' code a task's own parameters get their raw gradient.

    The step is as long as the weakest component, which is short where tasks are nearly parallel
    or opposed. Components weaker than 1e-6 of the strongest are dropped; the authors, in float32,
    drop those weaker than about 6e-4. TorchJD's step is 1/A of this one.

    Args:
        scale: length of the components: that of the weakest one (``min``), the ``median`` one's,
            or the root of their mean square (``rmse``).

    Raises:
        ValueError: ``scale`` is none of these.

    Reference: Senushkin et al., "Independent Component Alignment for Multi-Task Learning",
        CVPR 2023, arXiv 2305.19000, algorithm 1; ``median`` and ``rmse`` are in the authors' code
        only.
    """

    needs = "gramian"
    heads = "raw"

    def __init__(self, tasks: Sequence[str], /, *, scale: Scale = "min") -> None:
        super().__init__(tasks)
        if scale not in get_args(Scale):
            raise ValueError(f"scale must be one of {', '.join(get_args(Scale))}, but is {scale!r}")
        self.scale = scale

    def weights(self, stats: StepStats) -> Tensor:
        """Row sums of the balancing matrix: ``[A]``."""
        assert stats.gramian is not None
        squares_A, vectors_AA = torch.linalg.eigh(stats.gramian)  # ascending
        kept = squares_A > ZERO * squares_A[-1]
        if not kept.any():
            return torch.ones_like(stats.losses)
        squares_R, vectors_AR = squares_A[kept], vectors_AA[:, kept]
        squares = {"min": squares_R[0], "median": squares_R.median(), "rmse": squares_R.mean()}
        lengths_R = (squares[self.scale] / squares_R).sqrt()
        return torch.mv(vectors_AR, lengths_R * vectors_AR.sum(0)).to(stats.losses)
