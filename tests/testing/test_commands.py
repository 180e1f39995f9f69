"""``mtlkit check`` and ``pytest --mtlkit`` as a plugin's author meets them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtlkit import cli

Output = pytest.CaptureFixture[str]

WRONG = """\
  failed          the order of the tasks does not matter
                    what: with the tasks two, one, three the weights are two 1, one 0.5, three \
0.3333, and in their usual order one 1, two 0.5, three 0.3333
                    why:  Users name tasks in any order, and expect the same run.
                    mend: Treat all rows alike,"""


def check(capsys: Output, *words: str) -> tuple[int, str, str]:
    code = cli.main(["check", *words])
    return code, *capsys.readouterr()


@pytest.mark.usefixtures("stranger")
def test_check_prints_a_line_for_each_check(capsys: Output) -> None:
    code, out, _ = check(capsys, "right")
    first, *lines = out.splitlines()
    assert first == "balancer right, from plugin 'stranger' (stranger 1.0)"
    assert lines[0] == "  ok              it can be built"
    assert len(lines) == 18
    assert (
        "  not applicable  a linear balancer does not look at the losses of its step: it is" in out
    )
    assert code == 0


@pytest.mark.usefixtures("stranger")
def test_check_says_what_is_wrong_and_how_to_mend_it(capsys: Output) -> None:
    code, out, _ = check(capsys, "wrong", "--kind", "balancers")
    assert WRONG in out
    assert code == 1


@pytest.mark.usefixtures("stranger")
def test_check_takes_a_plugin_for_all_that_it_brings(capsys: Output) -> None:
    code, out, _ = check(capsys, "stranger")
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads == [
        "balancer right, from plugin 'stranger' (stranger 1.0)",
        "balancer wrong, from plugin 'stranger' (stranger 1.0)",
        "balancer needy is not checked: give it --share, alone",
    ]
    assert code == 1


@pytest.mark.usefixtures("stranger")
def test_check_takes_a_components_options(capsys: Output) -> None:
    assert check(capsys, "needy", "--share", "0.5")[0] == 0
    assert check(capsys, "balancer/needy", "--share=0.5")[0] == 0


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("needy", "Needy needs --share"),
        ("needy --share x", "--share expects a number, but got 'x'"),
        ("needy --shar 1", "unrecognized arguments: --shar; did you mean 'share'?"),
        ("rihgt", "no component or plugin is called 'rihgt'; did you mean 'right'?"),
        ("right --kind head", "no head is called 'right'"),
        ("right --kind hed", "unknown kind 'hed'; did you mean 'head'?\n  available: task, head, "),
        (
            "stranger --share 1",
            "options are for one component, but 'stranger' is balancer/right, balancer/wrong, ",
        ),
    ],
)
def test_a_mistake_is_one_line(capsys: Output, words: str, error: str) -> None:
    code, out, err = check(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"mtlkit check: error: {error}")


OWN = """
import sys

def test_own():
    if "--mtlkit" not in sys.argv:
        assert not {"torch", "yaml"} & set(sys.modules)
"""


def run_pytest(folder: Path, site: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_own.py").write_text(OWN)
    environment = {**os.environ, "PYTHONPATH": str(site), "MTLKIT_DISABLE_PLUGINS": ""}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_pytest_runs_each_check_as_a_test(tmp_path: Path, stranger: Path) -> None:
    done = run_pytest(tmp_path, stranger, "--mtlkit", "stranger", "-rs")
    assert done.returncode == 1
    assert "collected 37 items" in done.stdout
    assert "1 failed, 33 passed, 3 skipped" in done.stdout
    assert "__ balancer/wrong: the order of the tasks does not matter __" in done.stdout
    assert "\n  what: with the tasks two, one, three the weights are two 1," in done.stdout
    assert "it needs --share; call mtlkit.testing.check_balancer() with them in a test" in (
        done.stdout
    )


def test_pytest_runs_other_tests_only_when_they_are_named(tmp_path: Path, stranger: Path) -> None:
    one = ("--mtlkit", "balancer/right", "-k", "built or own")
    assert "1 passed, 17 deselected" in run_pytest(tmp_path, stranger, *one).stdout
    assert "2 passed, 17 deselected" in run_pytest(tmp_path, stranger, *one, ".").stdout


def test_pytest_imports_nothing_heavy_when_it_is_not_asked(tmp_path: Path, stranger: Path) -> None:
    done = run_pytest(tmp_path, stranger)
    assert "1 passed" in done.stdout, done.stdout


def test_pytest_refuses_a_name_that_nothing_has(tmp_path: Path, stranger: Path) -> None:
    done = run_pytest(tmp_path, stranger, "--mtlkit", "rihgt")
    assert done.returncode == 4
    error = "--mtlkit rihgt: no component or plugin is called 'rihgt'; did you mean 'right'?"
    assert error in done.stderr
