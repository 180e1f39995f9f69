"""Tracing: a network as one graph, and that graph in a file."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mtlkit.model import Model, as_floats

KEY = "mtlkit"
"""Under which a file holds what is said about it."""
INPUT = "image"
LARGEST = 2**31 - 2**24
"""Bytes of weights that still fit into one ONNX file, whose format ends at 2 GiB."""


class Graph(nn.Module):
    """From pictures to raw predictions: the tasks' views, the normalisation and the network.

    Args:
        part: predicts some of the tasks.
        whole: the model it is a part of, whose other tasks may alter what all see.
    """

    def __init__(self, part: Model, whole: Model) -> None:
        super().__init__()
        self.part = part
        self._whole = [whole]  # in a list, as its parameters are not this graph's
        self.seen = [not part.tasks.keys().isdisjoint(tasks) for tasks in whole.passes]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Raw predictions by task id for uint8 ``[B, 3, H, W]``."""
        views = self._whole[0].inputs(as_floats(image))
        shown = [view for view, seen in zip(views, self.seen, strict=True) if seen]
        predictions: dict[str, Tensor] = self.part(*shown)
        return predictions


@dataclass(frozen=True)
class InputShape:
    """Which pictures a graph takes.

    Args:
        size: height and width.
        batch_size: pictures at a time; None is any number.
        step: of which height and width are any multiple from twice on; None keeps them at ``size``.
    """

    size: tuple[int, int]
    batch_size: int | None = None
    step: int | None = None

    def example(self) -> Tensor:
        """Black pictures; of what may vary they have a number that nothing else has."""
        height, width = (3 * self.step, 5 * self.step) if self.step else self.size
        return torch.zeros((self.batch_size or 2, 3, height, width), dtype=torch.uint8)

    def dims(self) -> dict[int, Dim]:
        """The dimensions of the input that vary."""
        dims = {} if self.batch_size else {0: Dim("batch", min=1)}
        if self.step:
            dims |= {i: self.step * Dim(f"steps{i}", min=2) for i in (2, 3)}
        return dims

    def names(self) -> dict[int, str]:
        """What they are called."""
        return {i: ("batch", "channels", "height", "width")[i] for i in self.dims()}


def trace(graph: Graph, shape: InputShape) -> ExportedProgram:
    """The graph of one forward pass."""
    with torch.no_grad(), _quiet():
        return torch.export.export(
            graph, (shape.example(),), dynamic_shapes={INPUT: shape.dims()}, strict=False
        )


def write_pt2(program: ExportedProgram, file: Path, about: str) -> None:
    """Write for ``torch.export.load``, with ``about`` among its extra files."""
    program.example_inputs = None  # or black pictures would be written as well
    torch.export.save(program, file, extra_files={KEY: about})


def write_onnx(
    program: ExportedProgram, file: Path, about: str, *, tasks: Sequence[str], shape: InputShape
) -> None:
    """Write an ONNX file, with ``about`` in its metadata.

    Weights that do not fit lie beside it, in a file of its name and ``.data``.

    Args:
        program: what :func:`trace` gave.
        file: to write.
        about: text.
        tasks: ids, in the order of the graph's outputs.
        shape: of the graph's input.
    """
    with torch.no_grad(), _quiet():
        made: Any = torch.onnx.export(
            program.run_decompositions(_POOLS),
            (shape.example(),),
            input_names=[INPUT],
            output_names=list(tasks),
            dynamic_shapes={INPUT: shape.names()},
            dynamo=True,
            verbose=False,
        )
        for value in (value for node in made.model.graph for value in node.outputs):
            if value.name in tasks and not value.is_graph_output():
                value.name += "_inside"  # a task may be called like an operation
        made.model.metadata_props[KEY] = about
        weights = sum(value.nbytes for value in program.state_dict.values())
        made.save(file, external_data=weights > LARGEST)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters log and print beside the errors they raise."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)


def average_pool(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Torch's ``adaptive_avg_pool2d`` as two matrix products: ``[B, C, *size]``.

    ONNX has no such operation, and what the exporter makes of it is right for one size only.
    """
    rows, columns = (
        _shares(length, number, images)
        for length, number in zip(images.shape[-2:], size, strict=True)
    )
    return rows @ images @ columns.mT


def _shares(length: int, number: int, like: Tensor) -> Tensor:
    """What each of ``length`` positions adds to each of ``number`` means: ``[number, length]``."""
    cell = torch.arange(number, device=like.device)[:, None]
    start, end = cell * length // number, ((cell + 1) * length + number - 1) // number
    position = torch.arange(length, device=like.device)
    return ((position >= start) & (position < end)).to(like.dtype) / (end - start)


_POOLS = dict.fromkeys(
    (torch.ops.aten.adaptive_avg_pool2d.default, torch.ops.aten._adaptive_avg_pool2d.default),
    average_pool,
)
