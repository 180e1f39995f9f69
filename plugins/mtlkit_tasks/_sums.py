"""Sums over the labelled samples of a batch."""

from math import prod

import torch
from torch import Tensor


def labelled_sum(values: Tensor, present: Tensor) -> Tensor:
    """The sum of ``values`` [B, ...] over the samples that ``present`` [B] marks.

    A sample without a label gives neither a value nor a gradient, whatever its values are.
    """
    kept = present.reshape(-1, *[1] * (values.ndim - 1))
    return torch.where(kept, values, torch.zeros_like(values)).sum()


def labelled_elements(target: Tensor, present: Tensor) -> Tensor:
    """How many elements of ``target`` [B, ...] belong to samples that have a label: float32."""
    return present.sum().float() * prod(target.shape[1:])
