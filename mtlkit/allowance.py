"""A limit on what is made while a network is built from a stranger's description."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mtlkit.errors import CheckpointError
from mtlkit.model_folder import Weights

SPARE_BYTES, SPARE_CALLS = 2**30, 20_000
"""For what is built and not kept: timm builds models whole, and then cuts off what gives no
features. Over timm's families that took at most 470 MiB, and 19 operations for each weight."""


class Allowance(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside it only so much memory can be filled, by so many operations, as weights can need.

    The size of what an operation would make is found first, without making it. Tensors count
    whether they are kept or not.

    Args:
        weights: that the network is said to have.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes_left = 4 * weights.bytes + SPARE_BYTES
        self.calls_left = 50 * len(weights.stored) + SPARE_CALLS

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count an operation and what it makes, then let it happen."""
        kwargs = kwargs or {}
        self.calls_left -= 1
        if any(result.alias_info is None for result in func._schema.returns):
            self.bytes_left -= _size(func, args, kwargs)
        if self.bytes_left < 0 or self.calls_left < 0:
            raise CheckpointError("it describes a far larger network than its weights are for")
        return func(*args, **kwargs)


def _size(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Bytes of what an operation would make; 0 where only its values can tell."""
    kwargs = dict(kwargs)
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs["device"] = "meta"
    try:
        made = func(*tree_map(_bare, tuple(args)), **tree_map(_bare, kwargs))
    except Exception:  # no operation without values, or one that will fail in earnest too
        return 0
    return sum(leaf.nbytes for leaf in tree_leaves(made) if isinstance(leaf, Tensor))


def _bare(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value
