"""The hooks: names and arguments are a contract, and documented."""

import inspect

import pytest

from mtlkit import describe, hookspecs, registry

LIFE_CYCLE = {
    "mtlkit_run_started": ["run"],
    "mtlkit_epoch_started": ["run"],
    "mtlkit_step_ended": ["run", "step"],
    "mtlkit_evaluated": ["run", "result"],
    "mtlkit_checkpoint_saved": ["run", "checkpoint"],
    "mtlkit_stop_reason": ["run", "result"],
    "mtlkit_run_ended": ["run", "summary"],
    "mtlkit_run_failed": ["run", "error"],
}
TABLES = {f"mtlkit_{kind}s": list[str]() for kind in registry.KINDS}
HOOKS = {n: h for n, h in vars(hookspecs).items() if n.startswith("mtlkit_")}


def test_the_hooks_are_those_of_the_contract() -> None:
    found = {name: list(inspect.signature(hook).parameters) for name, hook in HOOKS.items()}
    assert found == {**TABLES, **LIFE_CYCLE}


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_and_argument_is_documented(name: str) -> None:
    description, helps = describe.parse_docstring(inspect.getdoc(HOOKS[name]) or "")
    assert description.summary
    assert list(helps) == list(inspect.signature(HOOKS[name]).parameters)
    assert all(helps.values())
