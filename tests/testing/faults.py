"""What single checks say about wrong components."""

from typing import Any

from mtlkit.testing import conformance
from mtlkit.testing.component import CHECKS


def own_checks(kind: str) -> set[str]:
    """Names of the checks of one kind, without those of every component."""
    return {check.name for check in conformance.checks(kind)} - {check.name for check in CHECKS}


def fault(kind: str, name: str, component: type, **options: Any) -> str:
    """What one check finds wrong."""
    check = next(check for check in conformance.checks(kind) if check.name == name)
    outcome = conformance.run(check, conformance.subject(kind, component, options))
    assert outcome.status == "failed", outcome
    return outcome.text
