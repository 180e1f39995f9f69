"""Agreement: whether a file does what the network does that was written into it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlkit.errors import RunError
from mtlkit.model import Model, as_floats
from mtlkit.tracing import InputShape

TOLERANCE = 1e-4
"""Of an output's largest value. Float32 in another order differs by 1e-7 to 1e-5 of it after as
many layers as networks have; an operation that is not the same one differs by 1e-3 or more."""

NUDGE = 1e-5
"""Of the pictures' values, a 400th of a grey level at most. Unpooling follows the largest of four
values: where two are alike up to rounding, it jumps. A file may differ as PyTorch does from itself
after such a nudge, which makes a hundred times as many jumps as rounding."""


@dataclass(frozen=True)
class Difference:
    """How far a file's raw predictions of a task are from PyTorch's, in their own unit.

    Args:
        most: the largest difference.
        median: of all differences.
        largest: absolute value that PyTorch predicts.
        allowed: for ``most``.
        allowed_median: for ``median``.
    """

    most: float
    median: float
    largest: float
    allowed: float
    allowed_median: float

    @property
    def relative(self) -> float:
        """The largest difference, to the largest value."""
        return self.most / self.largest if self.largest else self.most

    @property
    def accepted(self) -> bool:
        """Whether it is no more than rounding; a number that is none never is."""
        return self.most <= self.allowed and self.median <= self.allowed_median


@torch.inference_mode()
def compare(
    run: Callable[[Tensor], Mapping[str, Tensor]],
    part: Model,
    whole: Model,
    shape: InputShape,
    sizes: Sequence[tuple[int, int]],
) -> tuple[dict[str, Difference], int]:
    """How far a file is from the whole model on random pictures; and how many these were.

    Args:
        run: the file.
        part: the model that is in it.
        whole: the saved model.
        shape: which pictures the file takes.
        sizes: of the pictures.

    Raises:
        RunError: too far.
    """
    generator = torch.Generator().manual_seed(0)
    seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {id: [] for id in part.tasks}
    pictures = 0
    for size in sizes:
        for number in (shape.batch_size,) if shape.batch_size else (1, 3):
            batch = torch.randint(256, (number, 3, *size), generator=generator, dtype=torch.uint8)
            pictures += number
            floats = as_floats(batch)
            found, expected = run(batch), whole(*whole.inputs(floats))
            nudged = whole(*whole.inputs(floats * (1 - NUDGE)))
            for id, values in seen.items():
                values.append((found[id], expected[id], nudged[id]))
    differences = {id: _difference(values) for id, values in seen.items()}
    for id, d in differences.items():
        if not d.accepted:
            raise RunError(
                f"the file would not do what the network does: '{id}' differs by {d.most:.1e} "
                f"(median {d.median:.1e}), where {d.allowed:.1e} ({d.allowed_median:.1e}) is "
                "allowed; nothing was written"
            )
    return differences, pictures


def _difference(values: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Difference:
    """Of what was found, what was expected, and what PyTorch makes of nudged pictures."""
    found, expected, nudged = (
        torch.cat([part.flatten() for part in parts]) for parts in zip(*values, strict=True)
    )
    off, moves = (found - expected).abs(), (nudged - expected).abs()
    largest = float(expected.abs().max())
    least = max(TOLERANCE * largest, 1e-7)
    return Difference(
        most=float(off.max()),
        median=float(off.median()),
        largest=largest,
        allowed=max(least, float(moves.max())),
        allowed_median=max(least, float(moves.median())),
    )
