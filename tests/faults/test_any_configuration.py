"""Whatever a configuration says, it is taken or refused in words: nothing runs, nothing is written.

``pytest --hypothesis-profile=long tests/faults`` tries more.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hostile_values import VALUE, WORD, WORDS, harmless, mutated, small_model
from hypothesis import given
from hypothesis import strategies as st
from property_cases import cases

from mtlkit import build, config
from mtlkit.settings import Config

ARGUMENTS = [
    "--tasks", "seg,cls,breed=cls", "--tasks.seg.head", "fpn", "--tasks.seg.loss", "dice",
    "--backbone", "timm", "--backbone.options", "drop_path_rate=0.1,out_indices=[1]",
    "--balancer", "fixed", "--balancer.weights", "seg=1,cls=1,breed=2", "--image-size", "96x128",
    "--log-with", "tensorboard", "--monitor", "seg/miou", "--data.train", "9",
]  # fmt: skip
TREE = config.to_mapping(config.parse(ARGUMENTS)) | {"plugins": {"mtlkit": "0.1.0"}}
KEYS = sorted({*ARGUMENTS[::2], *(f"--{key}" for key in TREE), "--config", "--resume", "--tasks."})
TEXT = yaml.safe_dump(TREE)


@pytest.fixture(scope="module", autouse=True)
def _nothing_happens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In an empty folder, where the trap would leave a file."""
    folder = tmp_path_factory.mktemp("empty")
    before = Path.cwd()
    os.environ["MTLKIT_TRAP"] = str(folder / "caught")
    os.chdir(folder)
    yield
    os.chdir(before)
    del os.environ["MTLKIT_TRAP"]
    assert not list(folder.iterdir())
    assert not {"hostile_trap", "antigravity"} & set(sys.modules)


def is_good(found: Config) -> None:
    """A configuration that was taken can be written and read again."""
    text = yaml.safe_dump(config.to_mapping(found))
    with suppress(RecursionError):
        assert isinstance(text, str)


@cases(400)
@given(st.lists(st.one_of(st.sampled_from(KEYS), WORD, st.sampled_from(ARGUMENTS)), max_size=8))
def test_any_command_line_is_read_or_refused(words: list[str]) -> None:
    with harmless(Path.cwd()):
        is_good(config.parse(words))


def parse_file(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "run.yaml"
        file.write_bytes(data)
        with harmless(Path(folder)):
            is_good(config.parse(["--config", str(file)]))
        (Path(folder) / "config.yaml").write_bytes(data)
        with harmless(Path(folder)) as said:
            found = config.parse(["--resume", folder])
            assert found.settings.output == folder
        assert all("run.yaml" not in text for text in said)


YAML_LINE = st.one_of(
    WORD,
    st.sampled_from(TEXT.splitlines()),
    st.sampled_from([
        "lr: !!float 1e-3", "lr: !!int x", "? [a]\n: b", "a: &a [*a]", "a: &a {b: *a}", "<<: *a",
        "a: &a {lr: 1}", "b: {<<: [*a, *a]}", "seed: !!timestamp x", "seed: !!binary eA==",
        "seed: !!set {1}", "%YAML 9.9", "---", "...", "\"\\UFFFFFFFF\": 1", "'\\e': \"\\e[31m\"",
        "tasks: {\"\\0\": seg}", "epochs: 1:2:3:4", "epochs: " + "1:" * 300 + "1", "!!map x",
        "tasks: !!python/object/apply:hostile_trap.run []", "a: " + "[" * 2000, "a: " + "{a: " * 99,
        "lr: " + "9" * 5000, "lr: 2026-11-26", "seed: 1\nseed: 2", "\ttab: 1",
    ]),
)  # fmt: skip


@cases(400)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(YAML_LINE, max_size=6).map(
            lambda lines: "\n".join(lines).encode(errors="surrogatepass")
        ),
    )
)
def test_any_file_is_read_or_refused(data: bytes) -> None:
    parse_file(data)


@cases(300)
@given(mutated(TREE))
def test_any_change_of_a_runs_configuration_is_read_or_refused(tree: Any) -> None:
    with suppress(UnicodeEncodeError):
        parse_file(yaml.safe_dump(tree, allow_unicode=True).encode())


@cases(300)
@given(st.one_of(mutated(TREE), st.dictionaries(st.sampled_from(KEYS).map(lambda k: k[2:]), VALUE)))
def test_any_mapping_is_read_or_refused(tree: Any) -> None:
    with harmless(Path.cwd()):
        is_good(config.from_mapping(tree))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@cases(300)
@given(data=st.data())
def test_any_change_of_a_models_description_is_read_or_refused(
    model: Path, data: st.DataObject
) -> None:
    tree = data.draw(mutated(json.loads((model / "model" / "config.json").read_text())))
    load(model, json.dumps(tree).encode())


@cases(100)
@given(
    st.one_of(
        st.binary(max_size=40),
        VALUE.map(lambda value: json.dumps(value).encode()),
        st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]),
        st.sampled_from(WORDS).map(lambda word: word.encode(errors="replace")),
    )
)
def test_any_description_of_a_model_is_read_or_refused(model: Path, data: bytes) -> None:
    load(model, data)


def load(model: Path, description: bytes) -> None:
    with TemporaryDirectory() as folder:
        home = Path(folder) / "model"
        home.mkdir()
        shutil.copy(model / "model" / "model.safetensors", home)
        (home / "config.json").write_bytes(description)
        with harmless(Path(folder)) as said:
            assert build.load_model(Path(folder)).tasks
        assert all("\n" not in text for text in said)
