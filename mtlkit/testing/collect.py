"""The pytest plugin: ``pytest --mtlkit NAME`` runs each check as a test of its own.

pytest loads this in every session, so it imports nothing before it is asked.
"""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mtlkit.testing.conformance import Check, Subject


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--mtlkit``."""
    parser.getgroup("mtlkit").addoption(
        "--mtlkit",
        action="append",
        default=[],
        metavar="NAME",
        help="check a component (NAME or KIND/NAME), or all that a plugin brings; may be repeated. "
        "Without files or folders, nothing else is run.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look for no tests of the project's own unless they are asked for too."""
    if config.getoption("mtlkit") and config.args_source is not config.ArgsSource.ARGS:
        config.args = []


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Collect the named components beside the files."""
    report = yield
    if isinstance(collector, pytest.Session) and report.passed:
        words = collector.config.getoption("mtlkit")
        report.result += [part for word in words for part in _collectors(collector, word)]
    return report


def _collectors(session: pytest.Session, word: str) -> Iterator["_Component"]:
    from mtlkit.errors import MtlkitError
    from mtlkit.testing import conformance

    try:
        found = conformance.find(word)
        for component in found:
            name = f"{component.kind}/{component.name}"
            subject = conformance.subject(component.kind, component.qualified, {})
            yield _Component.from_parent(session, name=name, subject=subject, alone=len(found) == 1)
    except MtlkitError as error:
        raise pytest.UsageError(f"--mtlkit {word}: {error}") from None


class _Component(pytest.Collector):
    """The checks of one component.

    Args:
        alone: whether the user named this component, and no whole plugin.
    """

    def __init__(self, *, subject: "Subject", alone: bool, **rest: Any) -> None:
        super().__init__(**rest)
        self.subject = subject
        self.alone = alone

    def collect(self) -> Iterator["_Item"]:
        from mtlkit.testing import component, conformance

        checks = conformance.checks(self.subject.kind)
        if missing := component.required(self.subject.cls):
            checks = checks[:1] if self.alone else [conformance.unchecked(self.subject, missing)]
        for check in checks:
            yield _Item.from_parent(self, name=check.name, check=check)


class _Item(pytest.Item):
    """One check."""

    def __init__(self, *, check: "Check", parent: _Component, **rest: Any) -> None:
        super().__init__(parent=parent, **rest)
        self.check = check
        self.component = parent

    def runtest(self) -> None:
        from mtlkit.testing import conformance

        outcome = conformance.run(self.check, self.component.subject)
        if outcome.status == "failed":
            raise conformance.ConformanceError(str(outcome))
        if outcome.status != "ok":
            pytest.skip(f"{outcome.status}: {outcome.text}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from mtlkit.testing import ConformanceError

        if isinstance(excinfo.value, ConformanceError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        return self.component.subject.kind, None, f"{self.component.name}: {self.name}"
