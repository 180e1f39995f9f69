"""The rooms of the house: who may import whom, read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mtlkit
from mtlkit import registry

HOME = Path(mtlkit.__file__).parent
PLUGINS = HOME.parent / "plugins"

CONTRACT = {"backbone", "head", "task", "balancer", "data", "errors", "settings"}
ENGINE = {
    "model", "predictor", "tracing", "sharing", "processes", "gradients", "balancing", "window",
    "step", "nonfinite", "train", "evaluate", "full_size", "predict", "loader", "geometry", "cache",
    "session", "run",
    "files", "checkpoint", "saving", "resume", "random_state", "optimizer_state", "interruption",
    "trouble", "telling", "trackers", "summary", "model_folder", "allowance", "hub", "card",
    "markdown", "record", "picture",
    "agreement", "panels", "plots", "student",
}  # fmt: skip
WIRING = {
    "hookspecs", "plugin", "registry", "describe", "source", "tree", "convert", "options",
    "limits", "config", "saved", "build", "help", "cli", "commands", "api", "notebook", "own_data",
    "launch", "bench", "measure", "scaffold", "data_check", "data_preview", "report", "affinity",
    "demo", "export", "exported", "__main__",
}  # fmt: skip
PUBLIC_KIT = {"testing"}
MAY_IMPORT = {
    **dict.fromkeys(CONTRACT, CONTRACT),
    **dict.fromkeys(ENGINE, ENGINE | CONTRACT),
    **dict.fromkeys(WIRING, WIRING | ENGINE | CONTRACT),
    **dict.fromkeys(PUBLIC_KIT, PUBLIC_KIT | WIRING | ENGINE | CONTRACT),
}
MAY_IMPORT["commands"] = MAY_IMPORT["commands"] | PUBLIC_KIT  # when asked


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def is_guard(node: ast.AST) -> bool:
    """``if __name__ == "__main__":`` or ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "__name__ == '__main__'",
        "TYPE_CHECKING",
    )


def imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of everything imported; the name is empty for ``import module``."""
    for child in ast.iter_child_nodes(node):
        if is_guard(child):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, "") for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            source = "." * child.level + (child.module or "")
            yield from ((source, alias.name) for alias in child.names)
        else:
            yield from imports(child)


def modules() -> list[str]:
    """All but ``mtlkit/__init__``; a package's are ``package/module``."""
    homes = [HOME, *(file.parent for file in HOME.glob("*/__init__.py"))]
    files = [file.relative_to(HOME).with_suffix("") for home in homes for file in home.glob("*.py")]
    return sorted({file.as_posix() for file in files} - {"__init__"})


def room(module: str) -> str:
    """What a module is called among ``MAY_IMPORT``: packages are there as a whole."""
    return module.partition("/")[0]


def rim() -> list[Path]:
    return sorted(PLUGINS.glob("mtlkit_*/**/*.py"))


def test_every_module_has_a_room() -> None:
    assert set(map(room, modules())) <= set(MAY_IMPORT)


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    for source, name in imports(tree(HOME / f"{module}.py")):
        assert not source.startswith("."), "imports are absolute here"
        root, _, rest = source.partition(".")
        assert not root.startswith("mtlkit_"), f"{module} imports the plugin {source}"
        if root != "mtlkit":
            continue
        is_module = (HOME / f"{name}.py").exists() or (HOME / name / "__init__.py").exists()
        inner = rest.partition(".")[0] or (name if is_module else "")
        assert not inner or inner in MAY_IMPORT[room(module)], f"{module} imports mtlkit.{inner}"


@pytest.mark.parametrize("module", [m for m in modules() if room(m) in ("cli", "commands")])
def test_the_command_line_imports_the_public_kit_only_when_it_is_asked(module: str) -> None:
    at_start = [
        n for n in tree(HOME / f"{module}.py").body if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    sources = imports(ast.Module(at_start, type_ignores=[]))
    assert not [s for s in sources if "testing" in s[0].split(".") or s[1] == "testing"]


@pytest.mark.parametrize("module", sorted(CONTRACT))
def test_contracts_need_torch_alone(module: str) -> None:
    roots = {source.partition(".")[0] for source, _ in imports(tree(HOME / f"{module}.py"))}
    assert roots - set(sys.stdlib_module_names) <= {"torch", "mtlkit"}


@pytest.mark.parametrize("file", rim(), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_rim_knows_public_names_only(file: Path) -> None:
    package = file.relative_to(PLUGINS).parts[0]
    for source, name in imports(tree(file)):
        assert not source.startswith(".."), f"{source} leaves the package"
        root = source.partition(".")[0]
        if root.startswith("mtlkit_"):
            assert root == package, f"{source} is another plugin"
        elif root == "mtlkit":
            assert source in ("mtlkit", "mtlkit.testing"), f"{source} is not public"
            assert not name or name in mtlkit.__all__ or source != "mtlkit", f"{name} is not public"


@pytest.mark.parametrize("file", sorted(PLUGINS.glob("mtlkit_*/__init__.py")), ids=str)
def test_a_plugin_imports_nothing_heavy(file: Path) -> None:
    assert {source for source, _ in imports(tree(file))} == {"mtlkit"}


OTHER_MEANING = {"config"}
"""Names of components that are also the name of a general option, ``--config``."""


@pytest.mark.parametrize("module", ["__init__", *modules()])
def test_no_module_asks_which_component_it_is(module: str) -> None:
    names = {component.name for component in registry.load().components()} - OTHER_MEANING
    for node in ast.walk(tree(HOME / f"{module}.py")):
        if isinstance(node, ast.Compare | ast.match_case):
            words = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
            if isinstance(node, ast.match_case):
                words = {c.value for c in ast.walk(node.pattern) if isinstance(c, ast.Constant)}
            assert not words & names, f"line {getattr(node, 'lineno', '?')}: {words & names}"


def test_importing_mtlkit_imports_nothing_heavy() -> None:
    code = (
        "import sys, mtlkit\nmtlkit.hookimpl\n"
        "print({'torch', 'numpy', 'yaml', 'matplotlib'} & set(sys.modules))\n"
        "mtlkit.LossBalancer\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nTrue\n"


def test_every_public_name_is_there() -> None:
    for name in mtlkit.__all__:
        assert getattr(mtlkit, name) is not None
    assert set(mtlkit.__all__) <= set(dir(mtlkit))


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'mtlkit' has no attribute 'Nothing'$"):
        _ = mtlkit.Nothing
