"""An optimiser's state by the names of its parameters, so that parameters may come and go."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Names = Mapping[Any, str]


def optimizer_state(optimizer: torch.optim.Optimizer, names: Names) -> dict[str, Any]:
    """``state`` by parameter name, and ``groups`` without their parameters."""
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return {"state": {names[p]: state for p, state in optimizer.state.items()}, "groups": groups}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, names: Names, saved: Mapping[str, Any]
) -> None:
    """Take up what is saved of each parameter.

    Learning rates and whatever else the optimiser was built with stay as they are.
    """
    tree = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    tree["state"] = {
        i: saved["state"][names[parameter]]
        for i, parameter in enumerate(parameters)
        if names[parameter] in saved["state"]
    }
    built_with = {*optimizer.defaults, "initial_lr", "lr_scale", "params"}
    for group, before in zip(tree["param_groups"], saved["groups"], strict=False):
        group.update({k: v for k, v in before.items() if k in group and k not in built_with})
    optimizer.load_state_dict(tree)
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # fused steps read memory as it lies, so it must lie as the parameter does
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
