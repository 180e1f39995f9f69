"""No source of mtlkit runs what it reads."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mtlkit

HOME = Path(mtlkit.__file__).parent.parent
SOURCES = sorted([*HOME.glob("mtlkit/**/*.py"), *HOME.glob("plugins/**/*.py")])
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "shelve.open"),
    *("torch.hub.load", "torch.jit.load", "joblib.load"),
}


def faults(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "yaml"):
            yield from (a.name for a in node.names if f"{node.module}.{a.name}" in FORBIDDEN)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in FORBIDDEN:
            yield name
        if name == "torch.load" and given.get("weights_only") != "True":
            yield "torch.load that unpickles"
        if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            yield f"{name} that may unpickle"
        if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
            yield f"{name} with {given}"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(HOME)))
def test_no_source_runs_what_it_reads(file: Path) -> None:
    assert not list(faults(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "np.load(file, allow_pickle=True)",
        "np.load(file)",
        "from pickle import loads",
        "yaml.load(text, Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_such_a_source_is_found(source: str) -> None:
    assert list(faults(source))
