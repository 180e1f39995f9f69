"""The README is true: its table is what is registered, its code and commands run.

``python tests/test_readme.py`` writes the table of components anew.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mtlkit import registry
from mtlkit.registry import KINDS

README = Path(__file__).parents[1] / "README.md"
START, END = (
    "<!-- components: written by tests/test_readme.py -->\n",
    "<!-- end of components -->\n",
)
TEXT = README.read_text(encoding="utf-8")


def components() -> str:
    """A table of every component that mtlkit's own distribution brings."""
    from mtlkit.describe import describe

    rows = ["| kind | name | what it is |", "|---|---|---|"]
    for kind in KINDS:
        for component in sorted(registry.load().components(kind), key=lambda c: c.name):
            if component.distribution == "mtlkit":
                rows.append(f"| {kind} | `{component.name}` | {describe(component).summary} |")
    return "\n".join(rows) + "\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_table_of_components_is_what_is_registered() -> None:
    table = TEXT.split(START)[1].split(END)[0]
    assert table == components(), f"run: python {Path(__file__).name}"


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = next(block for block in blocks("python") if "mtlkit.fit" in block)
    small = '{"name": "shapes", "train": 32, "val": 8, "test": 8}, batch_size=8, workers=0'
    exec(compile(example.replace('"shapes"', small), "README.md", "exec"), {})


def test_the_yaml_example_is_a_configuration(tmp_path: Path) -> None:
    from mtlkit.config import parse

    (tmp_path / "run.yaml").write_text(blocks("yaml")[0])
    config = parse(["--config", str(tmp_path / "run.yaml")])
    assert config.tasks["seg"].head is not None
    assert config.tasks["seg"].head.name == "fpn"
    assert config.balancer.name == "uncertainty"
    assert config.settings.epochs == 30


def test_the_plugin_example_is_found_and_used(tmp_path: Path) -> None:
    table, method = (block for block in blocks("python") if "my_plugin/" in block)
    (tmp_path / "my_plugin").mkdir()
    (tmp_path / "my_plugin" / "__init__.py").write_text(table)
    (tmp_path / "my_plugin" / "inverse.py").write_text(method)
    info = tmp_path / "my_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mtlkit]\nmy-plugin = my_plugin\n")
    code = (
        "import mtlkit, torch; "
        "b = mtlkit.create('balancer', 'inverse', ('a', 'b'), power=1.0); "
        "s = mtlkit.StepStats(losses=torch.tensor([2.0, 4.0])); "
        "print(b.weights(s).tolist())"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[0.5, 0.25]"


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
    before, rest = TEXT.split(START)
    README.write_text(before + START + components() + END + rest.split(END)[1], encoding="utf-8")
