"""Conformance checks for components, mtlkit's own and everyone else's.

In a test, with the component's class or its registered name, and its options::

    from mtlkit.testing import check_balancer

    def test_mine_keeps_the_contract() -> None:
        check_balancer(Mine, power=0.5)

``mtlkit check NAME`` and ``pytest --mtlkit NAME`` do the same for what is installed. A class for
which a check cannot hold says so, and why::

    waives = {"the order of the tasks does not matter": "the first task is the main one"}

An option that maps the tasks to something has to name the tasks of the checks, ``TASKS``; a check
with fewer of them gets the option with just these.
"""

from mtlkit.testing.conformance import (
    TASKS,
    ConformanceError,
    check,
    check_backbone,
    check_balancer,
    check_dataset,
    check_head,
    check_task,
)

__all__ = [
    "TASKS",
    "ConformanceError",
    "check",
    "check_backbone",
    "check_balancer",
    "check_dataset",
    "check_head",
    "check_task",
]
