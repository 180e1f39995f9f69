"""Summary: what each part of a network holds and costs."""

from typing import Any, NamedTuple

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from mtlkit.model import Model
from mtlkit.sharing import Sharing


class Part(NamedTuple):
    """A part of a network.

    Args:
        parameters: trained ones.
        flops: floating-point operations of one forward pass for one image, a multiplication and an
            addition being two; None where they cannot be counted.
    """

    parameters: int
    flops: int | None


def summarise(model: Model, sharing: Sharing) -> dict[str, Part]:
    """``shared``, and by task id what it has to itself; nothing is computed for it.

    What a task costs is what would have to be computed for it alone, once what all share is there.
    """
    parameters = {"shared": sharing.shared, **sharing.own}
    counted = _count(model)
    return {
        name: Part(sum(p.numel() for p in own), counted.get(name))
        for name, own in parameters.items()
    }


def _count(model: Model) -> dict[str, int]:
    """Operations by part, from tensors without values; empty where a network needs values."""
    was_training = model.training
    try:
        return _Count(model.eval()).counted
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return {}
    finally:
        model.train(was_training)


class _Count:
    """Counts when a model is called on tensors without values."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.counted = {"shared": 0}
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        bare = {f"model.{name}": value.to("meta") for name, value in state.items()}
        images = torch.empty(1, 3, *model.image_size, device="meta")
        with torch.no_grad():
            functional_call(_Caller(self), bare, (images,))

    def __call__(self, images: torch.Tensor) -> None:
        model = self.model
        for view, tasks in zip(model.inputs(images), model.passes, strict=True):
            with FlopCounterMode(display=False) as counter:
                shared: Any = model.encode(view)
            self.counted["shared"] += counter.get_total_flops()
            for id in tasks:
                with FlopCounterMode(display=False) as counter:
                    model.decode(shared, [id], model.image_size)
                self.counted[id] = counter.get_total_flops()


class _Caller(torch.nn.Module):
    """So that a model's state can be exchanged while it is called in parts."""

    def __init__(self, count: _Count) -> None:
        super().__init__()
        self.model = count.model
        self._count = count

    def forward(self, images: torch.Tensor) -> None:
        self._count(images)


def table(parts: dict[str, Part]) -> list[str]:
    """Lines of a table, with a head."""
    rows = [("", "parameters", "GFLOPs per image")]
    for name, part in parts.items():
        flops = "-" if part.flops is None else f"{part.flops / 1e9:.3f}"
        rows.append((name, f"{part.parameters:,}", flops))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        f"{name:<{widths[0]}}  {parameters:>{widths[1]}}  {flops:>{widths[2]}}"
        for name, parameters, flops in rows
    ]
