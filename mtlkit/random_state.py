"""The state of every source of random numbers that a component may draw from."""

import random
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object


def seed_everything(seed: int) -> None:
    """Start every source of random numbers of this process anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> list[dict[str, Any]]:
    """Of Python, NumPy, torch and the GPU, on each process, by rank."""
    version, words, gauss = random.getstate()
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    state = {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [name, torch.tensor(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    gathered: list[dict[str, Any]] = gather_object([state])
    return gathered


def set_random_states(states: Sequence[dict[str, Any]], rank: int) -> None:
    """Give this process its state back; one that there was not before keeps its own."""
    if rank >= len(states):
        return
    state = states[rank]
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
