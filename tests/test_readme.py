"""The README is true: what is written into it is up to date, its code and commands run.

``python tests/test_readme.py`` writes the tables, examples and hooks anew.
"""

import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mtlkit import describe, hookspecs, registry, scaffold
from mtlkit.registry import KINDS

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def components() -> str:
    """A table of every component that mtlkit's own distribution brings."""
    rows = ["| kind | name | what it is |", "|---|---|---|"]
    for kind in KINDS:
        for component in sorted(registry.load().components(kind), key=lambda c: c.name):
            if component.distribution == "mtlkit":
                rows.append(
                    f"| {kind} | `{component.name}` | {describe.describe(component).summary} |"
                )
    return "\n".join(rows) + "\n"


def examples() -> str:
    """One component of each kind but the balancer, which is written by hand, folded."""
    parts = []
    for kind in KINDS:
        if kind != "balancer":
            code = scaffold.render(kind, "my-plugin")[f"my_plugin/{kind}.py"]
            title = f"<summary>A {kind}</summary>"
            parts.append(f"<details>\n{title}\n\n```python\n{code}```\n\n</details>\n")
    return "\n".join(parts)


def hooks() -> str:
    """Every hook with its arguments, from the docstrings."""
    lines = []
    for name, hook in vars(hookspecs).items():
        if name.startswith("mtlkit_"):
            description, helps = describe.parse_docstring(inspect.getdoc(hook) or "")
            text = " ".join(f"{description.summary} {description.text}".split())
            lines.append(f"- `{name}({', '.join(inspect.signature(hook).parameters)})`: {text}")
            lines += [f"  - `{argument}`: {text}" for argument, text in helps.items()]
    text = re.sub(r":func:`(\w+)`", r"`\1`", "\n".join(lines)).replace("``", "`")
    return "".join(f"{_wrapped(line)}\n" for line in text.splitlines())


def _wrapped(item: str) -> str:
    indent = " " * (item.index("-") + 2)
    return textwrap.fill(item, 100, subsequent_indent=indent, break_on_hyphens=False)


WRITTEN = {"components": components, "examples": examples, "hooks": hooks}


def part(name: str) -> tuple[str, str, str]:
    """What comes before, in and after a part of the README that is written by this file."""
    before, start, rest = TEXT.partition(f"<!-- {name}: written by tests/test_readme.py -->\n")
    inside, end, after = rest.partition(f"<!-- end of {name} -->\n")
    assert start, name
    assert end, name
    return before + start, inside, end + after


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_into_the_readme_is_up_to_date(name: str) -> None:
    assert part(name)[1] == WRITTEN[name](), "run: python tests/test_readme.py"


def test_every_hook_and_argument_is_in_the_readme() -> None:
    for name, hook in vars(hookspecs).items():
        if name.startswith("mtlkit_"):
            arguments = inspect.signature(hook).parameters
            entry = part("hooks")[1].split(f"- `{name}({', '.join(arguments)})`: ")[1]
            for argument in arguments:
                assert f"  - `{argument}`: " in entry.split("\n- `")[0]


def python_blocks() -> tuple[list[str], list[str], list[str]]:
    """Files of the plugin by hand, examples that this file writes, and what is to be run."""
    files = [block for block in blocks("python") if block.startswith("# my_plugin/")]
    written = [block for block in blocks("python") if block in examples()]
    run = [block for block in blocks("python") if block not in (*files, *written)]
    return files, written, run


def test_the_python_examples_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = '{"name": "shapes", "train": 16, "val": 8, "test": 8}, batch_size=8, workers=0'
    names: dict[str, Any] = {}
    for block in python_blocks()[2]:
        exec(compile(block.replace('"shapes"', small), "README.md", "exec"), names)
    assert names["model"].tasks.keys() == names["answer"].keys() == {"seg", "cls"}
    assert (tmp_path / "my-model" / "README.md").is_file()
    assert (tmp_path / "first-model" / "README.md").is_file()


def test_every_other_python_block_is_a_file_that_is_tested() -> None:
    files, written, run = python_blocks()
    assert len(files) == 2  # the fixture my_plugin installs them
    assert len(written) == len(KINDS) - 1  # the tests of scaffold run them
    assert len(run) == 4


def test_the_yaml_example_is_a_configuration(tmp_path: Path) -> None:
    from mtlkit.config import parse

    (tmp_path / "run.yaml").write_text(blocks("yaml")[0])
    config = parse(["--config", str(tmp_path / "run.yaml")])
    assert config.tasks["seg"].head is not None
    assert config.tasks["seg"].head.name == "fpn"
    assert config.balancer.name == "uncertainty"
    assert config.settings.epochs == 30


@pytest.fixture
def my_plugin(tmp_path: Path) -> Path:
    """The plugin in 20 lines, installed: a folder to have on the path."""
    files = {"pyproject.toml": blocks("toml")[0]}
    for block in blocks("python"):
        name = re.match(r"# (my_plugin/\w+\.py)", block)
        files |= {name[1]: block} if name else {}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = [line for text in files.values() for line in text.splitlines() if line.strip('# "')]
    assert len(code) <= 25
    group = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]["mtlkit"]
    info = tmp_path / "my_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1\n")
    entries = "".join(f"{name} = {module}\n" for name, module in group.items())
    (info / "entry_points.txt").write_text(f"[mtlkit]\n{entries}")
    return tmp_path


def test_the_plugin_example_is_found_used_and_keeps_the_contract(my_plugin: Path) -> None:
    code = (
        "import mtlkit, torch\n"
        "from mtlkit import testing\n"
        "balancer = mtlkit.create('balancer', 'my-plugin/inverse', ('a', 'b'), power=1.0)\n"
        "print(balancer.weights(mtlkit.StepStats(losses=torch.tensor([1.0, 3.0]))).tolist())\n"
        "testing.check_balancer('inverse')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(my_plugin)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[1.5, 0.5]\n", "")


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_of_the_plugin_chapter_exist(kind: str, tmp_path: Path) -> None:
    from mtlkit.cli import main

    command = re.search(r"^    mtlkit (plugin new .*)$", TEXT, flags=re.MULTILINE)
    assert command
    words = command[1].replace("balancer", kind).split()
    assert main([*words, "--output", str(tmp_path)]) == 0


def table1() -> list[str]:
    part = TEXT.split("<!-- table 1 -->")[1].split("<!-- end of table 1 -->")[0]
    return re.findall(r"`(mtlkit train .*?)`", part)


def test_every_column_of_the_published_table_has_a_command() -> None:
    assert len(table1()) == 9


@pytest.mark.slow
@pytest.mark.parametrize("command", table1())
def test_every_column_starts_and_runs_two_steps_on_the_pets(
    command: str, tmp_path: Path, vgg_weights: Path
) -> None:
    if "MTLKIT_TEST_DATA" not in os.environ:
        pytest.skip("MTLKIT_TEST_DATA does not name a folder with the pets")
    from mtlkit.cli import main

    words = [str(vgg_weights) if word == "true" else word for word in shlex.split(command)[1:]]
    options = [
        "--data", "oxford-pets", "--data.root", os.environ["MTLKIT_TEST_DATA"],
        "--image-size", "32", "--batch-size", "16", "--optimizer", "adam", "--max-steps", "2",
        "--workers", "0",
        "--data.verify", "false", "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main([*words, *options]) == 0
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.fixture(scope="module")
def vgg_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with the names and shapes of torchvision's vgg16_bn, without classifier."""
    import torch
    from safetensors.torch import save_file
    from torchvision.models import vgg16_bn

    torch.manual_seed(0)
    state = vgg16_bn(weights=None, init_weights=False).features.state_dict()
    file = tmp_path_factory.mktemp("weights") / "vgg16_bn.safetensors"
    save_file({f"features.{name}": value.contiguous() for name, value in state.items()}, file)
    return file


if __name__ == "__main__":
    for name, write in WRITTEN.items():
        before, _, after = part(name)
        TEXT = before + write() + after
    README.write_text(TEXT, encoding="utf-8")
