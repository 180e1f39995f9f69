"""Holds a backbone against the plain network of the same kind in ``benchmarks/speed/study.py``."""

from collections.abc import Sequence

import study
import torch
from torch import Tensor, nn

from mtlkit import Backbone, Features


def disturbed(backbone: Backbone) -> Backbone:
    """In float64, with batch norms that are no longer as they start."""
    backbone.double()
    for name, value in backbone.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            value.add_(torch.rand_like(value) * (1 if name.endswith("var") else 0.1))
    return backbone


def twin(backbone: Backbone, plain: nn.Module) -> nn.Module:
    """The plain network with the same parameters, buffers and precision."""
    plain.to(next(backbone.parameters()).dtype).train(backbone.training)
    plain.load_state_dict(backbone.state_dict())
    return plain


def maps(found: Features | study.Maps) -> list[Tensor]:
    """All levels, and the decoded map if there is one."""
    levels, dense = found
    return [*levels, *([] if dense is None else [dense])]


def assert_same(backbone: Backbone, plain: nn.Module, x: Tensor, tasks: Sequence[str]) -> None:
    """Outputs, all gradients, and what the batch norms remember."""
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours = backbone.route(backbone.encode(mine), tasks)
    plain.tasks = tasks  # type: ignore[assignment]
    theirs = plain(other)
    assert list(ours) == list(theirs) == list(tasks)
    pairs = []
    for task in tasks:
        assert (ours[task].dense is None) == (theirs[task][1] is None)
        pairs += zip(maps(ours[task]), maps(theirs[task]), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    random = [torch.randn_like(a) for a, _ in pairs]
    torch.autograd.backward([a for a, _ in pairs], random)
    torch.autograd.backward([b for _, b in pairs], random)
    gradients = {name: p.grad for name, p in plain.named_parameters()}
    for name, parameter in [*backbone.named_parameters(), ("images", mine)]:
        expected = gradients.get(name, other.grad)
        assert (parameter.grad is None) == (expected is None), name
        if expected is not None:
            scale = max(float(expected.abs().max()), 1)
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-9 * scale)
    for a, b in zip(backbone.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def assert_as_near_in_bf16(backbone: Backbone, plain: nn.Module, x: Tensor) -> None:
    """Under autocast every map is as near to the exact one as the plain network's is.

    Levels are within 10 %. A decoded map need not be: where rounding decides which of four values
    was the largest, an untrained decoder puts them elsewhere.
    """
    with torch.no_grad():
        exact = plain(x)
        with torch.autocast("cpu", torch.bfloat16):
            ours = backbone.route(backbone.encode(x), backbone.tasks)
            theirs = plain(x)
    for task, found in ours.items():
        mine, other = (_errors(maps(f), maps(exact[task])) for f in (found, theirs[task]))
        assert max(mine[: len(found.levels)]) < 0.1
        assert all(a < 1.1 * b for a, b in zip(mine, other, strict=True))


def _errors(found: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    pairs = zip(found, exact, strict=True)
    return [float((a.float() - b).norm() / b.norm()) for a, b in pairs]
