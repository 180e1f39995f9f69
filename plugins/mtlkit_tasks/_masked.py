"""Sums over what is labelled, with no 0 * inf and no copy from device to host."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
Elementwise = Callable[[Tensor, Tensor], Tensor]


def choose(option: str, name: str, table: Mapping[str, Value]) -> Value:
    """What ``table`` has under ``name``.

    Raises:
        ValueError: nothing.
    """
    if name not in table:
        raise ValueError(f"{option} must be one of {', '.join(table)}, but got '{name}'")
    return table[name]


def widen(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def spread(present: Tensor, like: Tensor) -> Tensor:
    """``present`` ``[B]`` with the dimensions of ``like`` ``[B, ...]``, all of size 1 but B."""
    return present.view(-1, *[1] * (like.dim() - 1))


def elementwise_sum(
    loss: Elementwise, prediction: Tensor, target: Tensor, present: Tensor
) -> Tensor:
    """``loss(prediction, target)``, which keeps their shape, summed over labelled samples.

    A prediction without a label is replaced before the loss, so that whatever it is, its gradient
    is 0.
    """
    mask = spread(present, prediction)
    prediction = torch.where(mask, widen(prediction), 0)
    target = torch.where(mask, target.to(prediction.dtype), 0)
    return torch.where(mask, loss(prediction, target), 0).sum()


def elements(shape: torch.Size, present: Tensor) -> Tensor:
    """Number of elements of the labelled samples of a batch of this shape."""
    return present.sum().float() * shape[1:].numel()
