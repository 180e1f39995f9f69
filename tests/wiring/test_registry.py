"""Plugins as installed distributions: what each event of the table in the design leads to."""

import ast
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from installing import Install

import mtlkit
from mtlkit import registry
from mtlkit.errors import ConfigError, MtlkitError, PluginError

MINE = """
import mtlkit

@mtlkit.hookimpl
def mtlkit_balancers():
    return {"mine": "my_parts:Mine"}
"""
PARTS = """
import mtlkit

class Mine(mtlkit.LossBalancer):
    weights = None

class Stranger:
    pass

class Unfinished(mtlkit.LossBalancer):
    pass
"""


def balancers(table: str, more: str = "") -> str:
    return f"import mtlkit\n\n@mtlkit.hookimpl\ndef mtlkit_balancers():\n    return {table}\n{more}"


def problems() -> list[str]:
    return [str(problem) for problem in registry.load().problems]


def error_of(kind: str, name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        registry.load().find(kind, name)
    return str(caught.value)


def test_what_mtlkit_ships_is_found_through_entry_points_alone() -> None:
    found = registry.load()
    assert found.problems == ()
    assert {plugin.distribution for plugin in found.plugins} == {"mtlkit"}
    assert {"equal", "fixed"} <= set(found.names("balancer"))


def test_without_plugins_the_registry_is_empty_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTLKIT_DISABLE_PLUGINS", "mtlkit")
    assert registry.load().components() == ()
    assert error_of("balancer", "equal") == (
        "unknown balancer 'equal'\n  available: none; no installed plugin brings a balancer"
    )


def test_a_strangers_component_is_found_like_an_own_one(install: Install) -> None:
    install("mtlkit-mine", MINE, modules={"my_parts": PARTS})
    component = registry.load().find("balancer", "mine")
    assert (component.plugin, component.distribution, component.version) == (
        "mine",
        "mtlkit-mine",
        "0.2",
    )
    assert "my_parts" not in sys.modules
    assert issubclass(component.load(), mtlkit.LossBalancer)
    assert registry.load().find("balancer", "mine/mine") == component
    assert "mine" in mtlkit.names("balancer")


def test_a_hook_may_return_the_class_itself(install: Install) -> None:
    source = balancers('{"mine": Mine}', "from my_parts import Mine")
    install("mtlkit-mine", source, modules={"my_parts": PARTS})
    component = registry.load().find("balancer", "mine")
    assert component.target == "my_parts:Mine"
    assert component.load().__name__ == "Mine"


def test_a_plugin_that_raises_on_import_is_left_out_and_named(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("mtlkit-broken", "import not_installed_lib")
    text = "plugin 'broken' (mtlkit-broken 0.2) did not load: No module named 'not_installed_lib'"
    assert problems() == [text]
    assert caplog.messages == [f"mtlkit: note: {text}"]
    assert error_of("balancer", "equl").splitlines()[0] == (
        "unknown balancer 'equl'; did you mean 'equal'?"
    )
    assert error_of("balancer", "equl").splitlines()[2] == f"  note: {text}"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise ValueError('a\\nb')", "did not load: ValueError: a b"),
        ("import sys; sys.exit(3)", "did not load: SystemExit: 3"),
        (
            "import mtlkit\n@mtlkit.hookimpl\ndef mtlkit_run_started(run, stap): ...",
            "did not load: hook mtlkit_run_started(run, stap): Argument(s) {'stap'} are declared "
            "in the hookimpl but can not be found in the hookspec",
        ),
        (
            "import mtlkit\n@mtlkit.hookimpl\ndef mtlkit_balancer(): return {}",
            "has an unknown hook 'mtlkit_balancer'; did you mean 'mtlkit_balancers'?",
        ),
        (
            "def mtlkit_balancers(): return {}",
            "has a function 'mtlkit_balancers' that lacks @mtlkit.hookimpl and is never called",
        ),
        (
            "import mtlkit\n@mtlkit.hookimpl(wrapper=True)\ndef mtlkit_tasks():\n    yield",
            "wraps the hook 'mtlkit_tasks'; mtlkit calls plain hooks only",
        ),
        (balancers("1 / 0"), "failed in mtlkit_balancers: ZeroDivisionError: division by zero"),
        (balancers("[]"), "returned list from mtlkit_balancers instead of a mapping"),
        (
            balancers("{'mine': 'my_parts.Mine'}"),
            "has a balancer 'mine' that is neither 'module:Class' nor a class: 'my_parts.Mine'",
        ),
        (
            balancers("{'mi/ne': 'my_parts:Mine'}"),
            "has a balancer 'mi/ne' whose name is not text without spaces, '/', ',' and '='",
        ),
    ],
)
def test_a_faulty_plugin_is_a_problem_or_an_error_in_strict_mode(
    install: Install, monkeypatch: pytest.MonkeyPatch, source: str, text: str
) -> None:
    install("mtlkit-broken", source)
    expected = f"plugin 'broken' (mtlkit-broken 0.2) {text}"
    assert problems() == [expected]
    assert registry.load().find("balancer", "equal")
    monkeypatch.setenv("MTLKIT_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError) as caught:
        registry.load()
    assert str(caught.value) == expected
    assert caught.value.exit_code == 3


def test_one_wrong_hook_takes_the_whole_plugin_out(install: Install) -> None:
    hook = "@mtlkit.hookimpl\ndef mtlkit_epoch_started(no): ..."
    install("mtlkit-broken", balancers("{'mine': 'my_parts:Mine'}", hook))
    assert len(problems()) == 1
    assert "mine" not in registry.load().names("balancer")


def test_mtlkits_own_names_stay_and_the_qualified_name_finds_the_other(install: Install) -> None:
    source = balancers("{'equal': 'my_parts:Mine'}")
    install("mtlkit-mine", source, modules={"my_parts": PARTS})
    assert problems() == [
        "plugin 'mine' (mtlkit-mine 0.2) brings the balancer 'equal', and so does plugin "
        f"'balancers' (mtlkit {mtlkit.__version__}); this one is 'mine/equal'"
    ]
    found = registry.load()
    assert found.find("balancer", "equal").distribution == "mtlkit"
    assert found.find("balancer", "mine/equal").target == "my_parts:Mine"
    assert found.find("balancer", "balancers/equal").distribution == "mtlkit"
    assert {"equal", "mine/equal"} <= set(found.names("balancer"))


def test_a_name_that_two_strangers_share_must_be_qualified(install: Install) -> None:
    install("mtlkit-one", MINE)
    install("mtlkit-two", MINE)
    text = (
        "'mine' is brought by plugin 'one' (mtlkit-one 0.2) and plugin 'two' (mtlkit-two 0.2); "
        "say 'one/mine' or 'two/mine'"
    )
    assert error_of("balancer", "mine") == f"balancer {text}"
    assert registry.load().find("balancer", "two/mine").plugin == "two"
    assert {"one/mine", "two/mine"} <= set(registry.load().names("balancer"))
    assert len(problems()) == 2


def test_two_distributions_with_one_entry_point_name_are_both_loaded(install: Install) -> None:
    install("mtlkit-one", balancers("{'a': 'my_parts:Mine'}"), plugin="extra")
    install("mtlkit-two", balancers("{'b': 'my_parts:Mine'}"), plugin="extra")
    assert problems() == []
    assert registry.load().find("balancer", "a").qualified == "mtlkit-one:extra/a"
    assert registry.load().find("balancer", "mtlkit-two:extra/b").distribution == "mtlkit-two"


def test_a_plugin_cannot_take_the_place_of_an_own_one(install: Install) -> None:
    install("mtlkit-mine", MINE, plugin="balancers")
    assert registry.load().find("balancer", "mine").plugin == "mtlkit-mine:balancers"
    assert registry.load().find("balancer", "equal").plugin == "balancers"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("gone:Mine", "cannot be loaded: No module named 'gone'"),
        (
            "my_parts:Gone",
            "cannot be loaded: AttributeError: module 'my_parts' has no attribute 'Gone'",
        ),
        ("my_parts:Stranger", "is not a subclass of mtlkit.LossBalancer: my_parts:Stranger"),
        ("my_parts:mtlkit", "is not a subclass of mtlkit.LossBalancer: my_parts:mtlkit"),
        ("my_parts:Unfinished", "lacks: weights (my_parts:Unfinished)"),
    ],
)
def test_a_wrong_target_is_named_when_it_is_used(
    install: Install, monkeypatch: pytest.MonkeyPatch, target: str, text: str
) -> None:
    install("mtlkit-bad", balancers(f"{{'mine': '{target}'}}"), modules={"my_parts": PARTS})
    component = registry.load().find("balancer", "mine")
    with pytest.raises(ConfigError) as caught:
        component.load()
    assert str(caught.value) == f"balancer 'mine' of plugin 'bad' (mtlkit-bad 0.2) {text}"
    monkeypatch.setenv("MTLKIT_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError):
        component.load()


@pytest.mark.parametrize("disabled", ["mine", "mtlkit-mine", "x, mine", "*"])
def test_a_plugin_can_be_disabled(
    install: Install, monkeypatch: pytest.MonkeyPatch, disabled: str
) -> None:
    install("mtlkit-mine", MINE)
    monkeypatch.setenv("MTLKIT_DISABLE_PLUGINS", disabled)
    assert "mine" not in registry.load().names("balancer")
    assert "equal" in registry.load().names("balancer")


def test_an_unknown_kind_is_named() -> None:
    assert error_of("balancers", "x") == (
        "unknown kind 'balancers'; known: task, head, backbone, balancer, dataset"
    )


OBSERVER = """
import mtlkit
seen = []

@mtlkit.hookimpl
def mtlkit_step_ended(step):
    seen.append(step)
    if step == 2:
        raise ValueError("two")

@mtlkit.hookimpl
def mtlkit_stop_reason(result):
    return "enough" if result else None

@mtlkit.hookimpl
def mtlkit_run_ended(run, summary):
    seen.append(summary)
"""


def steps(observers: Any) -> None:
    for step in (1, 2, 3):
        observers.notify("mtlkit_step_ended", run=None, step=step)


def test_an_observer_that_raises_is_logged_once_and_detached_from_that_run(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("mtlkit-eye", OBSERVER)
    observers = registry.load().observers()
    with caplog.at_level(logging.ERROR):
        steps(observers)
        observers.notify("mtlkit_run_ended", run=None, summary="end")
    assert sys.modules["mtlkit_eye"].seen == [1, 2]
    assert caplog.messages == [
        "plugin 'eye' (mtlkit-eye 0.2) failed in mtlkit_step_ended and is detached from this run"
    ]
    assert "ValueError: two" in caplog.text
    registry.load().observers().notify("mtlkit_step_ended", run=None, step=4)
    assert sys.modules["mtlkit_eye"].seen == [1, 2, 4]


def test_an_observer_that_raises_ends_a_strict_run(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("mtlkit-eye", OBSERVER)
    monkeypatch.setenv("MTLKIT_STRICT_PLUGINS", "1")
    with pytest.raises(ValueError, match="two"):
        steps(registry.load().observers())


def test_the_first_stop_reason_counts_and_its_errors_are_raised(install: Install) -> None:
    install("mtlkit-eye", OBSERVER)
    observers = registry.load().observers()
    assert observers.stop_reason(run=None, result={"x": 1}) == "enough"
    assert observers.stop_reason(run=None, result={}) is None
    raising = "import mtlkit\n@mtlkit.hookimpl\ndef mtlkit_stop_reason(): raise OSError('gone')"
    install("mtlkit-worse", raising)
    with pytest.raises(OSError, match="gone"):
        registry.load().observers().stop_reason(run=None, result={})


def test_only_the_first_process_of_a_machine_speaks_of_problems(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install("mtlkit-broken", "import not_installed_lib")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert len(problems()) == 1
    assert caplog.messages == []


def test_finding_names_imports_no_component_and_nothing_heavy() -> None:
    code = (
        "import sys, mtlkit.registry as r; found = r.load(); [found.names(k) for k in r.KINDS]\n"
        "heavy = {'torch', 'timm', 'numpy', 'segmentation_models_pytorch'}\n"
        "print(heavy & set(sys.modules), "
        "[m for m in sys.modules if m.startswith('mtlkit_') and '.' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set() []\n"


HOMONYMS = {
    "config": "a key of Python and YAML",
    "folder": "a key of what fit returns",
    "log": "a choice of --losses, and a scale of plots",
    "timm": "a library whose version is written down",
}
"""Names of components that mean something else in the core."""


def test_no_module_of_the_core_contains_a_components_name() -> None:
    """Except where the default run is written down; text with spaces is prose or an example."""
    home = Path(mtlkit.__file__).parent
    names = {component.name for component in registry.load().components()}
    for file in home.rglob("*.py"):
        if file.parent.name == "templates":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        defaults = {
            id(child)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DEFAULTS"
            for child in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in defaults:
                text = str(node.value)
                found = set() if " " in text else set(text.split(",")) & names
                assert found <= HOMONYMS.keys(), f"{file.name}, line {node.lineno}: {found}"


def test_plugin_errors_are_for_users() -> None:
    assert issubclass(PluginError, MtlkitError)
