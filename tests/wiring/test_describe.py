"""Describe: what the source of a component tells without importing it."""

import sys
from pathlib import Path

import pytest

from mtlkit import describe, registry
from mtlkit.describe import Description, Option

KINDS = registry.KINDS


def of(name: str, source: str, site: Path, monkeypatch: pytest.MonkeyPatch) -> Description:
    (site / "described.py").write_text(source)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "described", raising=False)
    describe._tree.cache_clear()
    component = registry.Component("balancer", "x", "p", "d", "1", f"described:{name}")
    return describe.describe(component)


@pytest.mark.usefixtures("toy")
def test_options_and_docstring_come_from_the_source_alone() -> None:
    found = describe.describe(registry.load().find("balancer", "cagrad"))
    assert found.summary == "Average gradient, moved toward the worst-off task."
    assert found.sections == {"Reference": "Liu et al., NeurIPS 2021, arXiv 2110.14048."}
    assert found.options == (
        Option("c", "float", "0.4", "radius, in [0, 1)."),
        Option("max_norm", "float", "1.0", "largest norm."),
    )
    assert "toy_parts" not in sys.modules


@pytest.mark.usefixtures("toy")
def test_a_class_without_a_constructor_has_its_bases_options() -> None:
    found = describe.describe(registry.load().find("task", "cls"))
    assert [option.name for option in found.options] == ["target", "loss", "smoothing"]
    assert found.options[1] == Option("loss", "Literal['ce', 'dice']", "'ce'", "what is minimised.")
    assert found.options[0].help.startswith("the label to learn. By default")
    assert "toy_parts" not in sys.modules


@pytest.mark.parametrize("where", ["from ._base import B", "from boxed._base import B as B"])
def test_a_base_class_may_be_in_another_module_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    package = tmp_path / "boxed"
    package.mkdir()
    (package / "__init__.py").touch()
    base = "class B:\n    def __init__(self, *, depth: int = 2): ..."
    (package / "_base.py").write_text(base)
    (package / "part.py").write_text(f"{where}\nclass A(B):\n    ...")
    monkeypatch.syspath_prepend(tmp_path)
    describe._tree.cache_clear()
    component = registry.Component("balancer", "x", "p", "d", "1", "boxed.part:A")
    assert describe.describe(component).options == (Option("depth", "int", "2", ""),)
    assert "boxed.part" not in sys.modules
    del sys.modules["boxed"]


def test_a_required_option_has_no_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "class A:\n    def __init__(self, tasks, /, *, a: int, b=WIDE):\n        ...\nWIDE = (1, 2)"
    )
    found = of("A", source, tmp_path, monkeypatch)
    assert found.options == (Option("a", "int", None, ""), Option("b", "", "(1, 2)", ""))
    assert "described" not in sys.modules


def test_help_may_go_on_over_lines_and_name_colons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = '''
class A:
    """One line.

    More text.

    Args:
        a: the first: of
            two lines.

    Reference: Someone,
        somewhere.
    """

    def __init__(self, *, a: int = 1): ...
'''
    found = of("A", source, tmp_path, monkeypatch)
    assert found.options[0].help == "the first: of two lines."
    assert (found.summary, found.text) == ("One line.", "More text.")
    assert found.sections["Reference"].split() == ["Someone,", "somewhere."]


@pytest.mark.parametrize(
    "source",
    [
        "import mtlkit\nBase = mtlkit.LossBalancer\nclass A(Base):\n    weights = None\n",
        "import mtlkit\nclass A(mtlkit.LossBalancer):\n    weights = None\n"
        "    def __init__(self, tasks, /, **more): ...\n",
        "import mtlkit\nclass B(mtlkit.LossBalancer):\n    weights = None\nA = B\n",
    ],
)
def test_what_the_source_does_not_tell_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    assert of("A", source, tmp_path, monkeypatch).options == ()
    assert "described" in sys.modules


@pytest.mark.parametrize("kind", KINDS)
def test_every_shipped_component_has_a_summary_and_documented_options(kind: str) -> None:
    for component in registry.load().components(kind):
        found = describe.describe(component)
        assert found.summary.endswith("."), component
        for option in found.options:
            assert option.type, (component, option)
            assert option.help, (component, option)


@pytest.mark.parametrize("kind", KINDS)
def test_the_source_and_the_imported_class_tell_the_same(kind: str) -> None:
    for component in registry.load().components(kind):
        read, imported = describe.describe(component), describe.from_class(component.load())
        assert [o.name for o in read.options] == [o.name for o in imported.options], component
        assert read.summary == imported.summary
