"""Comparing tensors, and what was computed before and after saving."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.checkpoint import load_tree, save_tree
from mtlkit.model_folder import read_model, save_model
from mtlkit.testing.conformance import Fault, expect


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether all differences are small against the largest value."""
    if found.shape != expected.shape:
        return False
    found, expected = found.detach().double(), expected.detach().double()
    if not expected.numel():
        return True
    scale = expected.abs().max().clamp(min=1e-12)
    return bool((found - expected).abs().max() <= tolerance * scale)


def largest_difference(found: Tensor, expected: Tensor) -> str:
    """For messages: the largest difference, and the largest value it is to be seen against."""
    difference = (found.detach().double() - expected.detach().double()).abs().max()
    return f"by up to {difference:.2g}, where the largest value is {expected.abs().max():.2g}"


def finite(tensor: Tensor) -> bool:
    """Whether no value is infinite or NaN."""
    return bool(tensor.detach().isfinite().all())


def reload(trained: nn.Module, fresh: nn.Module) -> None:
    """Give ``fresh`` the state of ``trained``, by way of the files that a run leaves."""
    with TemporaryDirectory() as folder:
        save_model(Path(folder), trained, {})
        read_model(Path(folder))[1].load_into(fresh)


def reloaded(tree: Any) -> Any:
    """What a checkpoint makes of states."""
    with TemporaryDirectory() as folder:
        save_tree(Path(folder) / "state", tree)
        return load_tree(Path(folder) / "state")


def disturb(module: nn.Module) -> None:
    """Change every parameter a little, as training does."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)


@contextmanager
def unchanged(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Raise a :class:`Fault` if one of them is changed meanwhile."""
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    yield
    for name, tensor in tensors.items():
        expect(torch.equal(tensor, before[name]), f"{name} was changed in place")


@contextmanager
def no_global_random_numbers(what: str) -> Iterator[None]:
    """Raise a :class:`Fault` if torch's global generator is drawn from, or seeded."""
    before = torch.get_rng_state()
    yield
    if not torch.equal(before, torch.get_rng_state()):
        raise Fault(f"{what} used torch's global random numbers")
