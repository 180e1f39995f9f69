"""Sharing a model: in a folder, and on a Hub that is a folder here, with no network."""

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from installing import Install
from small_run import OPTIONS, small_run
from torch import Tensor

import mtlkit
from mtlkit import registry
from mtlkit.cli import main
from mtlkit.errors import CheckpointError

FILES = ["README.md", "config.json", "model.safetensors"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def picture() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8, generator=generator)


class Hub:
    """Stands in for ``HfApi``: what is sent to it lies in the client's own cache, as downloaded."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.asked: list[dict[str, Any]] = []

    def __call__(self, **given: Any) -> "Hub":
        self.asked.append(given)
        return self

    def create_repo(self, repo_id: str, **given: Any) -> SimpleNamespace:
        self.asked.append(given)
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: str, **given: Any) -> SimpleNamespace:
        self.asked.append(given)
        home = self.cache / f"models--{repo_id.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(COMMIT)
        (home / "snapshots").mkdir()
        os.rename(_copy(Path(folder_path)), home / "snapshots" / COMMIT)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/{COMMIT}")

    def files(self, repo_id: str) -> Path:
        return self.cache / f"models--{repo_id.replace('/', '--')}" / "snapshots" / COMMIT


def _copy(folder: Path) -> Path:
    copy = folder.with_name(folder.name + ".sent")
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub(tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "HfApi", stand_in)
    return stand_in


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*given: Any, **options: Any) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(huggingface_hub, "HfApi", asked)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal to the last bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def test_a_shared_folder_is_the_model_of_the_run_and_a_card(
    run: Path, tmp_path: Path, no_hub: None
) -> None:
    mtlkit.load(run).save_pretrained(tmp_path / "shared", run=run)
    assert sorted(os.listdir(tmp_path / "shared")) == FILES
    for name in FILES[1:]:
        assert filecmp.cmp(tmp_path / "shared" / name, run / "model" / name, shallow=False)


def test_run_and_shared_folder_are_read_alike_by_load_and_from_pretrained(
    run: Path, tmp_path: Path, picture: Tensor, no_hub: None
) -> None:
    mtlkit.load(run).save_pretrained(tmp_path)
    answer = mtlkit.load(run).predict(picture)
    for model in (
        mtlkit.load(tmp_path),
        mtlkit.Model.from_pretrained(tmp_path),
        mtlkit.Model.from_pretrained(str(run)),
    ):
        assert same(model.predict(picture), answer)
        assert not model.training


def test_a_loaded_model_knows_its_configuration(run: Path) -> None:
    written = json.loads((run / "model" / "config.json").read_text())
    assert mtlkit.load(run).config == written


def test_a_model_pushed_by_one_process_answers_alike_when_pulled_by_another_with_fewer_plugins(
    run: Path, tmp_path: Path, hub: Hub, picture: Tensor
) -> None:
    model = mtlkit.load(run)
    address = model.push_to_hub("someone/pets", run=run)
    assert address == f"https://hub/someone/pets/commit/{COMMIT}"
    code = (
        "import sys, mtlkit, torch\n"
        "model = mtlkit.Model.from_pretrained('someone/pets')\n"
        "answer = model.predict(torch.load(sys.argv[1]))\n"
        "print(mtlkit.names('balancer'), mtlkit.names('dataset'))\n"
        "torch.save(answer, sys.argv[2])"
    )
    torch.save(picture, tmp_path / "picture.pt")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "picture.pt", tmp_path / "answer.pt"],
        env={
            **os.environ,
            "MTLKIT_DISABLE_PLUGINS": "balancers,datasets",
            "HF_HUB_CACHE": str(hub.cache),
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[] []\n", "")
    assert same(torch.load(tmp_path / "answer.pt"), model.predict(picture))


def test_the_card_on_the_hub_names_the_model_as_it_is_called_there(run: Path, hub: Hub) -> None:
    mtlkit.load(run).push_to_hub("someone/pets", run=run)
    text = (hub.files("someone/pets") / "README.md").read_text()
    assert 'mtlkit.Model.from_pretrained("someone/pets")' in text
    assert "# someone/pets\n" in text


def test_what_the_hub_has_to_know_is_passed_on(run: Path, hub: Hub) -> None:
    mtlkit.load(run).push_to_hub(
        "someone/pets", private=True, token="secret", revision="v2", commit_message="better"
    )
    client, made, sent = hub.asked
    assert client == {"token": "secret", "library_name": "mtlkit"}
    assert made == {"private": True, "exist_ok": True}
    assert sent == {"revision": "v2", "commit_message": "better"}


def test_what_a_download_has_to_know_is_passed_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **given: Any) -> str:
        asked.update(name=name, **given)
        return str(run / "model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    mtlkit.Model.from_pretrained(
        "someone/pets", revision="v2", token="secret", cache_dir=tmp_path, local_files_only=True
    )
    assert sorted(asked.pop("allow_patterns")) == FILES
    assert asked == {
        "name": "someone/pets", "revision": "v2", "token": "secret", "cache_dir": tmp_path,
        "local_files_only": True, "library_name": "mtlkit",
    }  # fmt: skip


def test_a_local_folder_wins_over_the_hub(
    run: Path, tmp_path: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mtlkit.load(run).save_pretrained(tmp_path / "someone" / "pets")
    monkeypatch.chdir(tmp_path)
    assert list(mtlkit.Model.from_pretrained("someone/pets").tasks) == ["seg", "cls", "bbox"]


def test_load_never_asks_the_hub(no_hub: None) -> None:
    with pytest.raises(CheckpointError, match="someone/pets"):
        mtlkit.load("someone/pets")


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "/nothing/there", "./there", Path("a/b")])
def test_what_cannot_be_a_name_on_the_hub_is_not_looked_for_there(
    name: str | Path, no_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^there is no folder .*; give that of a run or mod"):
        mtlkit.Model.from_pretrained(name)


def test_a_model_that_the_hub_does_not_give_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^no folder someone/none, and cannot get it from"):
        mtlkit.Model.from_pretrained("someone/none", cache_dir=tmp_path, local_files_only=True)


def test_a_push_that_fails_is_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**given: Any) -> None:
        raise RuntimeError("401 Unauthorized.\n\nInvalid token.")

    monkeypatch.setattr(huggingface_hub, "HfApi", refuse)
    assert main(["share", str(run), "--push", "someone/pets"]) == 2
    assert capsys.readouterr().err == (
        "mtlkit share: error: cannot push to 'someone/pets': 401 Unauthorized. Invalid token; "
        "log in by hf auth login if you have not\n"
    )


def test_a_model_put_together_by_hand_cannot_be_shared(run: Path, tmp_path: Path) -> None:
    loaded = mtlkit.load(run)
    model = mtlkit.Model(
        list(loaded.tasks.values()),
        loaded.backbone,
        dict(loaded.heads.items()),
        image_size=(32, 32),
    )
    with pytest.raises(CheckpointError, match=r"^this model was put together by hand"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"^cannot write the model to .*file/x: Not a dir"):
        mtlkit.load(run).save_pretrained(tmp_path / "file" / "x")


def test_nothing_is_written_when_the_run_is_damaged(run: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(run, tmp_path / "run"))
    (broken / "results.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"^cannot read .*results\.json"):
        mtlkit.load(run).save_pretrained(tmp_path / "shared", run=broken)
    assert not (tmp_path / "shared").exists()


def test_a_card_that_was_edited_stays(run: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    mtlkit.load(run).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_the_command_writes_a_folder_whose_edited_card_it_pushes(
    run: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    assert main(["share", str(run), "--output", str(shared)]) == 0
    assert sorted(os.listdir(shared)) == FILES
    (shared / "README.md").write_text("mine")
    capsys.readouterr()
    assert main(["share", str(shared), "--push", "someone/pets", "--private"]) == 0
    assert capsys.readouterr().out == f"https://hub/someone/pets/commit/{COMMIT}\n"
    assert (hub.files("someone/pets") / "README.md").read_text() == "mine"
    assert hub.asked[1]["private"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say where to: --output FOLDER or --push USER/NAME"),
        (["--output", "new", "--private"], "--private is for --push USER/NAME"),
        (["--output", "."], "the output folder . is in use; choose another --output"),
    ],
)
def test_a_wrong_command_is_one_line(
    words: list[str],
    message: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run)
    assert main(["share", str(run), *words]) == 2
    assert capsys.readouterr().err == f"mtlkit share: error: {message}\n"


HEAD = '''
from torch import nn
from mtlkit import Head


class Plain(Head):
    """A linear layer over the mean of the last level."""

    output = "vector"

    def __init__(self, spec, out_channels, /):
        super().__init__(spec, out_channels)
        self.layer = nn.Linear(spec.channels[-1], out_channels)

    def forward(self, features, size, /):
        return self.layer(features.levels[-1].mean((2, 3)))
'''

HOOK = """
import mtlkit

@mtlkit.hookimpl
def mtlkit_heads():
    return {"plain": "stranger_heads:Plain"}
"""


def test_a_model_whose_plugin_is_absent_names_it(
    tmp_path: Path, install: Install, picture: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("mtlkit-stranger", HOOK, version="0.7", modules={"stranger_heads": HEAD})
    tasks = {"cls": {"head": "plain"}}
    trainer = mtlkit.Trainer(**{**OPTIONS, "tasks": tasks})
    trainer.save(tmp_path / "model")
    loaded = mtlkit.Model.from_pretrained(tmp_path / "model")
    trained = trainer.model.to(memory_format=torch.contiguous_format)  # as it is loaded
    assert same(loaded.predict(picture), trained.predict(picture))
    monkeypatch.setenv("MTLKIT_DISABLE_PLUGINS", "mtlkit-stranger")
    registry.forget()
    with pytest.raises(CheckpointError, match=r"unknown head 'plain'(.|\n)*mtlkit-stranger 0\.7"):
        mtlkit.Model.from_pretrained(tmp_path / "model")
