"""Processes: what the engine exchanges with the other processes of a run."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

# torch 2.14 gave these new names and warns of the old ones
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class Processes:
    """Sums over, and shares of vectors among, the processes of a run; on one, no work at all.

    Args:
        count: of processes.
        rank: of this one.
        device: where the others' values arrive.
    """

    def __init__(self, *, count: int = 1, rank: int = 0, device: torch.device) -> None:
        self.count = count
        self.rank = rank
        self.device = device

    @classmethod
    def of(cls, accelerator: Accelerator) -> "Processes":
        """All processes of a run."""
        return cls(
            count=accelerator.num_processes,
            rank=accelerator.process_index,
            device=accelerator.device,
        )

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over all processes, on the device they are on."""
        if self.count == 1:
            return values
        there = values.to(self.device, copy=True)
        dist.all_reduce(there)
        return there.to(values.device)

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Sum each of these over all processes, in one exchange."""
        if self.count == 1 or not tensors:
            return
        flat = self.sum(torch.cat([tensor.reshape(-1) for tensor in tensors]))
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def largest(self, values: Tensor) -> Tensor:
        """Each of ``values`` as it is largest on any process."""
        if self.count == 1:
            return values
        there = values.to(self.device, copy=True)
        dist.all_reduce(there, dist.ReduceOp.MAX)
        return there.to(values.device)

    def first(self, values: Tensor) -> Tensor:
        """``values`` as the first process has them."""
        if self.count == 1:
            return values
        there = values.to(self.device, copy=True)
        dist.broadcast(there, 0)
        return there.to(values.device)

    def share(self, vector: Tensor) -> Tensor:
        """This process's ``count``-th part of the sum of ``vector`` over all processes.

        Gloo's own reduce-scatter moves as much as an all-reduce; parts exchanged all to all and
        added here do not.

        Args:
            vector: ``[count * p]``.

        Returns:
            ``[p]``; ``vector`` itself on one process.
        """
        if self.count == 1:
            return vector
        parts = vector.view(self.count, -1)
        if self.device.type == "cpu":
            received = torch.empty_like(parts)
            dist.all_to_all_single(received, parts)
            return received.sum(0)
        mine = torch.empty_like(parts[0])
        _reduce_scatter(mine, vector)
        return mine

    def gather(self, part: Tensor, out: Tensor) -> None:
        """Write every process's ``part`` ``[p]`` into ``out`` ``[count * p]``, in their order."""
        if self.count == 1:
            if out.data_ptr() != part.data_ptr():
                out.copy_(part)
        else:
            _all_gather(out, part)
