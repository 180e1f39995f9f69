"""Sums over the columns of a Jacobian that lie on several processes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mtlkit import Columns

CHUNK = 2**18


def parts(rows_Ap: Tensor) -> Iterator[slice]:
    """Some columns at a time, so that their float64 copies stay small."""
    return (slice(start, start + CHUNK) for start in range(0, rows_Ap.shape[1], CHUNK))


def lengths(rows_Ap: Tensor, columns: Columns) -> Tensor:
    """``[A]`` float64 on the CPU: the rows' lengths over all P columns."""
    squares = torch.zeros(len(rows_Ap), dtype=torch.float64, device=rows_Ap.device)
    for part in parts(rows_Ap):
        squares += rows_Ap[:, part].double().square().sum(1)
    return columns.sum(squares).sqrt().cpu()


def spread(values_A: Tensor, index_A: Tensor, like_Tp: Tensor) -> Tensor:
    """``[T]``: the values where their tasks are, 0 elsewhere, to multiply ``like_Tp`` with."""
    values_T = like_Tp.new_zeros(len(like_Tp))
    values_T[index_A.to(like_Tp.device)] = values_A.to(like_Tp)
    return values_T
