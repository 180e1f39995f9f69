"""Scaffold: the files of a new package, and the names it cannot have.

That they install and pass their own tests: ``tests/third_party/test_generated.py``.
"""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from installing import Install

from mtlkit import cli, registry, scaffold
from mtlkit.registry import KINDS


def new(*words: str) -> int:
    return cli.main(["plugin", "new", *words])


def test_the_files_are_named_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new("fair-share", "--kind", "balancer", "--output", str(tmp_path)) == 0
    home = tmp_path / "fair-share"
    files = [
        home / "pyproject.toml", home / "README.md", home / "fair_share" / "__init__.py",
        home / "fair_share" / "balancer.py", home / "tests" / "test_fair_share.py",
    ]  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        *map(str, files),
        f"next: pip install -e {home} && pytest {home}",
    ]
    assert sorted(file for file in home.rglob("*") if file.is_file()) == sorted(files)


def test_a_kind_may_be_said_in_the_plural(tmp_path: Path) -> None:
    assert new("fair-share", "--kind", "balancers", "--output", str(tmp_path)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_has_its_own_name_everywhere(kind: str) -> None:
    texts = scaffold.render(kind, "fair-share")
    assert not re.search(r"(?i:my[-_]?plugin)|USE", "".join([*texts, *texts.values()]))
    others = [other for other in KINDS if other != kind]
    for path in ("pyproject.toml", "fair_share/__init__.py"):
        assert not any(other in texts[path] for other in others)
    project = tomllib.loads(texts["pyproject.toml"])
    assert project["project"]["name"] == "fair-share"
    assert project["project"]["entry-points"]["mtlkit"] == {"fair-share": "fair_share"}
    assert f'"fair-share": "fair_share.{kind}:FairShare"' in texts["fair_share/__init__.py"]
    classes = ast.parse(texts[f"fair_share/{kind}.py"]).body
    assert "FairShare" in [item.name for item in classes if isinstance(item, ast.ClassDef)]
    assert "mtlkit train" in texts["README.md"]


def test_every_kind_has_templates_and_every_template_is_used() -> None:
    folder = Path(scaffold.__file__).parent / "templates"
    own = {f"{word}{kind}.py" for kind in KINDS for word in ("", "test_")}
    found = {file.name for file in folder.iterdir() if file.is_file()}
    assert found == own | {"pyproject.toml", "README.md", "hooks.py"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_short(kind: str) -> None:
    texts = scaffold.render(kind, "x")
    code = [line for line in texts[f"x/{kind}.py"].splitlines() if line.strip()]
    assert len(code) <= 70
    assert max(map(len, "\n".join(texts.values()).splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Fair", "'Fair' cannot name a package; use small letters, digits and single dashes, "
                 "a letter first, as in my-plugin"),
        ("fair_share", "'fair_share' cannot name a package"),
        ("2fair", "'2fair' cannot name a package"),
        ("fair--share", "'fair--share' cannot name a package"),
        ("../fair", "'../fair' cannot name a package"),
        ("class", "'class' cannot name a package"),
        ("tests", "'tests' cannot name a package"),
        ("json", "there is a package 'json' already, which this one would hide"),
        ("mtlkit", "there is a package 'mtlkit' already, which this one would hide"),
        ("tensor", "the example of a balancer has a 'Tensor' already"),
        ("cagrad", "there is a balancer 'cagrad' already, of plugin 'balancers' (mtlkit"),
        ("mine", "there is a balancer 'mine' already, of plugin 'mine' (mtlkit-mine 0.2)"),
    ],
)  # fmt: skip
def test_a_name_that_would_not_work_is_refused(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    hooks = "import mtlkit\n@mtlkit.hookimpl\ndef mtlkit_balancers(): return {'mine': 'a:B'}"
    install("mtlkit-mine", hooks)
    assert new(name, "--kind", "balancer", "--output", str(tmp_path / "new")) == 2
    assert capsys.readouterr().err.startswith(f"mtlkit plugin: error: {message}")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fair").mkdir()
    assert new("fair", "--kind", "head", "--output", str(tmp_path)) == 2
    assert capsys.readouterr().err == (
        f"mtlkit plugin: error: {tmp_path / 'fair'} is there already; choose another NAME or "
        "--output\n"
    )
    assert list((tmp_path / "fair").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert new("fair", "--kind", "head", "--output", str(tmp_path / "file")) == 2
    assert "cannot write the package" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("new fair", "the following arguments are required: --kind"),
        ("new --kind head", "the following arguments are required: NAME"),
        ("old fair --kind head", "argument new: invalid choice: 'old'"),
        ("new fair --kind heat", "unknown kind 'heat'; did you mean 'head'?"),
    ],
)
def test_a_mistake_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    assert cli.main(["plugin", *line.split()]) == 2
    assert capsys.readouterr().err.startswith(f"mtlkit plugin: error: {message}")


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_example_is_used_with_exists(kind: str) -> None:
    """The templates name built-in components; these must be there."""
    text = "".join(scaffold.render(kind, "fair-share").values())
    known = {component.name for component in registry.load().components()}
    named = re.findall(r'(?:tasks=|"name": |default_head = )"([\w,-]+)"', text)
    words = {word for names in named for word in names.split(",")} - {"fair-share"}
    assert words <= known
