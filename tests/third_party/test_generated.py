"""What ``mtlkit plugin new`` writes installs, is listed, and passes its own tests as it is."""

import pytest
from environments import Environment, MakeEnvironment

from mtlkit.registry import KINDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(make_environment: MakeEnvironment) -> Environment:
    """A fresh environment with one generated package per kind."""
    environment = make_environment()
    for kind in KINDS:
        done = environment.mtlkit("plugin", "new", f"first-{kind}", "--kind", kind)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"next: pip install -e first-{kind} && pytest first-{kind}\n")
    folder = environment.python.parents[1]
    environment.install(*[word for kind in KINDS for word in ("-e", folder / f"first-{kind}")])
    return environment


def test_they_are_listed_and_can_be_imported(installed: Environment) -> None:
    listed = installed.mtlkit("list").stdout
    assert all(f"  first-{kind}" in listed for kind in KINDS)
    checked = installed.mtlkit("plugins", "--check", MTLKIT_DISABLE_PLUGINS="mtlkit")
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_pass_and_a_run_uses_it(installed: Environment, kind: str) -> None:
    done = installed.run("-m", "pytest", "-q", "-W", "error", f"first-{kind}")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_in_its_readme_chooses_it(installed: Environment, kind: str) -> None:
    readme = installed.python.parents[1] / f"first-{kind}" / "README.md"
    lines = [line.split() for line in readme.read_text().splitlines()]
    command = next(words for words in lines if words[:2] == ["mtlkit", "train"])
    done = installed.mtlkit(*command[1:], "--print-config")
    assert done.returncode == 0, done.stderr
    assert f"name: first-{kind}\n" in done.stdout
