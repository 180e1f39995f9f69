"""Each row of the table of events: a really broken distribution, and what its user reads.

A checkpoint that needs an absent plugin: ``tests/third_party/test_indoor.py``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from installing import Install

import mtlkit

Done = subprocess.CompletedProcess[str]

SMALL = [
    "--tasks", "cls", "--backbone", "segnet", "--backbone.width", "4", "--image-size", "32",
    "--batch-size", "8", "--data.train", "16", "--data.val", "5", "--data.test", "7",
    "--max-steps", "2", "--workers", "0",
]  # fmt: skip
STRICT = {"MTLKIT_STRICT_PLUGINS": "1"}


def hooks(*functions: str) -> str:
    return "import mtlkit\n" + "".join(f"\n@mtlkit.hookimpl\n{f}\n" for f in functions)


def balancers(table: str) -> str:
    return hooks(f"def mtlkit_balancers(): return {table}")


def mtlkit_(sites: list[Path], *words: str, **variables: str) -> Done:
    """Run a command in a process of its own, where ``sites`` are installed too."""
    path = os.pathsep.join(map(str, sites))
    return subprocess.run(
        [sys.executable, "-m", "mtlkit", *words],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, **variables},
    )  # fmt: skip


PROBLEMS = {
    "it raises on import": (
        "import not_installed_lib",
        "did not load: No module named 'not_installed_lib'",
    ),
    "a hook has wrong arguments": (
        hooks("def mtlkit_run_started(run, stap): ..."),
        "did not load: hook mtlkit_run_started(run, stap): Argument(s) {'stap'} are declared in "
        "the hookimpl but can not be found in the hookspec",
    ),
    "a hook's name is unknown": (
        hooks("def mtlkit_balancer(): return {}"),
        "has an unknown hook 'mtlkit_balancer'; did you mean 'mtlkit_balancers'?",
    ),
    "a hook ends the program": (
        hooks("def mtlkit_balancers(): raise SystemExit(5)"),
        "failed in mtlkit_balancers: SystemExit: 5",
    ),
    "it takes a name that mtlkit ships": (
        balancers("{'equal': 'my_parts:Mine'}"),
        f"brings the balancer 'equal', and so does plugin 'balancers' (mtlkit "
        f"{mtlkit.__version__}); this one is 'broken/equal'",
    ),
}
every_problem = pytest.mark.parametrize(
    ("source", "text"), [pytest.param(*case, id=id) for id, case in PROBLEMS.items()]
)


@every_problem
def test_a_problem_is_one_line_and_the_command_goes_on(
    install: Install, source: str, text: str
) -> None:
    site = install("mtlkit-broken", source)
    done = mtlkit_([site], "list", "heads")
    assert done.stderr == f"mtlkit: note: plugin 'broken' (mtlkit-broken 0.2) {text}\n"
    assert done.returncode == 0
    assert "  linear " in done.stdout


@every_problem
def test_a_problem_is_shown_by_plugins_and_by_every_unknown_name(
    install: Install, source: str, text: str
) -> None:
    site = install("mtlkit-broken", source)
    problem = f"plugin 'broken' (mtlkit-broken 0.2) {text}"
    done = mtlkit_([site], "plugins")
    assert done.stdout.splitlines()[-1] == f"problem: {problem}"
    for command in (["train", "--balancer", "equl"], ["show", "balancer", "equl"]):
        done = mtlkit_([site], *command)
        assert done.returncode == 2
        assert "unknown balancer 'equl'; did you mean 'equal'?\n" in done.stderr
        assert done.stderr.splitlines()[-1] == f"  note: {problem}"


@every_problem
def test_a_problem_ends_every_strict_command(install: Install, source: str, text: str) -> None:
    site = install("mtlkit-broken", source)
    for command in (["list"], ["plugins"], ["train"]):
        done = mtlkit_([site], *command, **STRICT)
        assert done.stderr == (
            f"mtlkit {command[0]}: error: plugin 'broken' (mtlkit-broken 0.2) {text}\n"
        )
        assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("entry_points.txt", b"[mtlkit]\nno equals sign", "plugin 'unknown' (mtlkit-old 0.2) has a "
         "damaged entry_points.txt: TypeError: "),
        ("entry_points.txt", b"[mtlkit]\nold = \xe9", "plugin 'unknown' (mtlkit-old 0.2) has a "
         "damaged entry_points.txt: UnicodeDecodeError: "),
        ("METADATA", b"", "plugin 'old' (unknown 0) did not load: "),
        ("entry_points.txt", b"[mtlkit]\nold = gone", "plugin 'old' (mtlkit-old 0.2) did not load: "
         "No module named 'gone'"),
    ],
)  # fmt: skip
def test_a_damaged_distribution_breaks_nothing_else(
    install: Install, file: str, content: bytes, note: str
) -> None:
    sites = [
        install("mtlkit-good", balancers("{'mine': 'my_parts:Mine'}")),
        install("mtlkit-old", "import gone"),
    ]
    (sites[1] / "mtlkit_old-0.2.dist-info" / file).write_bytes(content)
    done = mtlkit_(sites, "list", "balancers")
    assert done.returncode == 0
    assert done.stderr.startswith(f"mtlkit: note: {note}")
    assert done.stderr.count("\n") == 1
    assert "  mine " in done.stdout
    assert "  equal " in done.stdout


def test_a_qualified_name_finds_what_has_the_name_of_a_shipped_one(install: Install) -> None:
    part = (
        "import mtlkit\nclass Mine(mtlkit.LossBalancer):\n    '''My own.'''\n    weights = None\n"
    )
    table = balancers("{'equal': 'my_parts:Mine'}")
    site = install("mtlkit-broken", table, modules={"my_parts": part})
    assert "mtlkit_balancers.equal" in mtlkit_([site], "show", "balancer", "equal").stdout
    done = mtlkit_([site], "show", "balancer", "broken/equal")
    assert done.stdout.startswith("balancer equal: My own.")
    assert "  broken/equal " in mtlkit_([site], "list", "balancers").stdout


def test_a_name_that_two_strangers_share_is_an_error_that_names_both(install: Install) -> None:
    table = balancers("{'mine': 'my_parts:Mine'}")
    sites = [install("mtlkit-one", table), install("mtlkit-two", table)]
    done = mtlkit_(sites, "train", "--balancer", "mine")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "mtlkit train: error: balancer 'mine' is brought by plugin 'one' (mtlkit-one 0.2) and "
        "plugin 'two' (mtlkit-two 0.2); say 'one/mine' or 'two/mine'"
    )
    listed = mtlkit_(sites, "list", "balancers").stdout
    assert "  one/mine" in listed
    assert "  two/mine" in listed
    strict = mtlkit_(sites, "list", **STRICT)
    assert strict.returncode == 3
    assert "this one is 'two/mine'" in strict.stderr


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("gone:Mine", "cannot be loaded: No module named 'gone'"),
        ("json:JSONDecoder", "is not a subclass of mtlkit.LossBalancer: json:JSONDecoder"),
    ],
)
def test_a_wrong_target_is_an_error_when_it_is_used(
    install: Install, target: str, text: str
) -> None:
    site = install("mtlkit-broken", balancers(f"{{'mine': '{target}'}}"))
    error = f"balancer 'mine' of plugin 'broken' (mtlkit-broken 0.2) {text}\n"
    listed = mtlkit_([site], "list", "balancers")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "  mine " in listed.stdout
    checked = mtlkit_([site], "plugins", "--check")
    assert checked.returncode == 1
    assert f"problem: {error}" in checked.stdout
    used = mtlkit_([site], "train", "--balancer", "mine")
    assert (used.returncode, used.stderr) == (2, f"mtlkit train: error: {error}")
    for command in (["train", "--balancer", "mine"], ["plugins", "--check"]):
        strict = mtlkit_([site], *command, **STRICT)
        assert (strict.returncode, strict.stderr) == (3, f"mtlkit {command[0]}: error: {error}")


OBSERVER = hooks("def mtlkit_step_ended(run):\n    raise ValueError(f'step {run.step}')")


@pytest.mark.slow
def test_an_observer_that_raises_is_detached_and_the_run_goes_on(
    install: Install, tmp_path: Path
) -> None:
    site = install("mtlkit-eye", OBSERVER)
    done = mtlkit_([site], "train", *SMALL, "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    note = "plugin 'eye' (mtlkit-eye 0.2) failed in mtlkit_step_ended and is detached from this run"
    assert done.stderr.count(note) == 1
    assert done.stderr.count("ValueError: step ") == 1
    assert (tmp_path / "run" / "results.json").is_file()


DIARY = hooks(
    *(
        f"def mtlkit_{event}({argument}): print('told', '{event}', {shown})"
        for event, argument, shown in (
            ("run_started", "run", "run.step"),
            ("epoch_started", "run", "run.epoch"),
            ("step_ended", "step", "len(step.losses)"),
            ("evaluated", "result", "result['split'], 'cls/accuracy' in result"),
            ("checkpoint_saved", "checkpoint", "checkpoint.name"),
            ("run_ended", "summary", "summary['status']"),
            ("run_failed", "error", "type(error).__name__"),
        )
    )
)


@pytest.mark.slow
def test_the_events_of_a_run_are_told_in_order(install: Install, tmp_path: Path) -> None:
    site = install("mtlkit-diary", DIARY)
    done = mtlkit_([site], "train", *SMALL, "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("told ")] == [
        "told run_started 0",
        "told epoch_started 0",
        "told step_ended 1",
        "told step_ended 1",
        "told evaluated val True",
        "told checkpoint_saved last",
        "told evaluated test True",
        "told run_ended ok",
    ]


@pytest.mark.slow
def test_a_run_that_a_signal_ends_is_told_as_failed(install: Install, tmp_path: Path) -> None:
    press = hooks(
        "def mtlkit_step_ended(run):\n"
        "    import os, signal\n"
        "    os.kill(os.getpid(), signal.SIGINT)",
    )
    sites = [install("mtlkit-diary", DIARY), install("mtlkit-press", press)]
    done = mtlkit_(sites, "train", *SMALL, "--output", str(tmp_path / "run"))
    assert done.returncode == 130, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("told ")]
    assert told[-2:] == ["told checkpoint_saved last", "told run_failed SystemExit"]


BALANCER = """
import mtlkit

class Mine(mtlkit.LossBalancer):
    def weights(self, stats):
        raise ValueError("step 1")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "options", "variables"),
    [
        pytest.param(OBSERVER, [], STRICT, id="a strict observer"),
        pytest.param(
            hooks("def mtlkit_stop_reason(run):\n    raise ValueError(f'step {run.step}')"),
            [],
            {},
            id="a stop reason",
        ),
        pytest.param(
            balancers("{'mine': 'my_parts:Mine'}"), ["--balancer", "mine"], {}, id="a component"
        ),
    ],
)
def test_what_changes_training_or_is_strict_ends_the_run_when_it_raises(
    install: Install, tmp_path: Path, source: str, options: list[str], variables: dict[str, str]
) -> None:
    site = install("mtlkit-eye", source, modules={"my_parts": BALANCER})
    done = mtlkit_(
        [site], "train", *SMALL, *options, "--output", str(tmp_path / "run"), **variables
    )
    assert done.returncode == 1
    assert "ValueError: step " in done.stderr
    assert not (tmp_path / "run" / "results.json").exists()


def test_without_its_own_packages_the_core_works_and_says_that_nothing_is_there() -> None:
    """The packages are taken away from outside, as if they were not installed."""
    code = """
import importlib.metadata, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("mtlkit_"):
            raise ModuleNotFoundError(f"No module named '{name}'")

sys.meta_path.insert(0, Without())
if "entries" in sys.argv:
    found = importlib.metadata.entry_points
    importlib.metadata.entry_points = lambda **of: [] if of == {"group": "mtlkit"} else found(**of)

import mtlkit.api
from mtlkit import registry
from mtlkit.cli import main

print([registry.load().names(kind) for kind in registry.KINDS])
main(["list", "heads"])
print(main(["train", "--balancer", "equal"]))
"""
    none = "  available: none; no installed plugin brings a {}"
    for words, notes in ((["entries"], 0), ([], 5)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines() == [
            "[[], [], [], [], []]",
            "heads",
            "  none; no installed plugin brings a head",
            "2",
        ]
        assert none.format("backbone") in done.stderr or none.format("task") in done.stderr
        assert done.stderr.count("  note: plugin '") == notes
