"""Every file of a checkpoint, damaged in every way: it is named, and the one before is used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mtlkit.saving
from mtlkit.checkpoint import FILES, MANIFEST, Checkpoints, load_tree, save_tree
from mtlkit.cli import main
from mtlkit.errors import CheckpointError

SMALL = [
    "--tasks", "seg,cls", "--backbone", "segnet", "--backbone.width", "2", "--image-size", "32",
    "--batch-size", "4", "--epochs", "3", "--data.train", "8", "--data.val", "4",
    "--data.test", "4", "--workers", "0",
]  # fmt: skip

Damage = Callable[[Path], object]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x04
    file.write_bytes(content)


DAMAGES: dict[str, Damage] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-7]),
    "emptied": lambda file: file.write_bytes(b""),
    "flipped": flip,
    "deleted": Path.unlink,
}
EVERY = [(name, how) for name in (*FILES, MANIFEST) for how in DAMAGES]


def tree(step: int) -> dict[str, object]:
    return {"model": {"w": torch.full((50,), float(step))}, "progress": {"step": step}}


@pytest.mark.parametrize(("name", "how"), EVERY)
def test_a_damaged_file_is_recognised_and_the_checkpoint_before_is_used(
    name: str, how: str, tmp_path: Path
) -> None:
    before = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        before.save(tree(step), step)
    saved = Checkpoints(tmp_path, keep=3)
    DAMAGES[how](tmp_path / "last" / name)
    found, problems = saved.load()
    assert found["progress"]["step"] == 2
    (problem,) = problems
    assert str(tmp_path / "last") in problem
    assert f"{name} is" in problem or (name == MANIFEST and how == "flipped")
    saved.save(tree(3), 3)
    assert Checkpoints(tmp_path).load() == (tree_equal(3), [])


class tree_equal:
    """Equal to a tree of that step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, dict)
        same = torch.equal(other["model"]["w"], torch.full((50,), float(self.step)))
        return same and other["progress"] == {"step": self.step}


@pytest.mark.parametrize("bit", range(8))
def test_any_bit_counts(bit: int, tmp_path: Path) -> None:
    save_tree(tmp_path / "last", tree(1))
    for name in (*FILES, MANIFEST):
        content = (tmp_path / "last" / name).read_bytes()
        for place in range(0, len(content), max(1, len(content) // 37)):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            (tmp_path / "last" / name).write_bytes(changed)
            with pytest.raises(CheckpointError, match="is damaged"):
                load_tree(tmp_path / "last")
        (tmp_path / "last" / name).write_bytes(content)
    load_tree(tmp_path / "last")


def test_half_written_checkpoints_do_not_count(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path, keep=2)
    saved.save(tree(1), 1)
    shutil.copytree(tmp_path / "last", tmp_path / "last.new")
    (tmp_path / "last.new" / MANIFEST).unlink()
    assert Checkpoints(tmp_path).load() == (tree_equal(1), [])
    saved.save(tree(2), 2)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["last", "step-00000001"]


def test_between_the_two_renames_the_one_before_is_there(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path, keep=1)
    saved.save(tree(1), 1)
    (tmp_path / "last").rename(tmp_path / "step-00000001")
    again = Checkpoints(tmp_path, keep=1)
    assert again.load() == (tree_equal(1), [])
    again.save(tree(2), 2)
    assert [f.name for f in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_as_many_are_kept_as_wanted(keep: int, tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path, keep=keep)
    for step in (5, 10, 15, 20, 120):
        saved.save(tree(step), step)
    earlier = [f"step-{step:08d}" for step in (20, 15, 10, 5)][: keep - 1]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["last", *sorted(earlier)]
    assert [f.name for f in saved.earlier()] == earlier


def test_when_none_is_whole_nothing_is_touched(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path)
    for step in (1, 2):
        saved.save(tree(step), step)
    for folder in ("last", "step-00000001"):
        flip(tmp_path / folder / "state.safetensors")
    with pytest.raises(CheckpointError) as caught:
        Checkpoints(tmp_path).load()
    assert str(caught.value) == (
        f"the checkpoint {tmp_path / 'last'} is damaged: state.safetensors is not as it was "
        "written; there is no other to go on from"
    )
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtlkit.checkpoint.FORMAT", 99)
    save_tree(tmp_path / "last", tree(1))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="it has format 99, this mtlkit reads 1"):
        load_tree(tmp_path / "last")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "run"
    assert main(["train", *SMALL, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def results(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "results.json").read_text())
    for clock in ("seconds", "peak_bytes"):
        found.pop(clock)
    return found


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(run / "checkpoints" / "last" / "state.safetensors")
    assert main(["train", "--resume", str(run)]) == 0
    said = capsys.readouterr().out
    last = run / "checkpoints" / "last"
    assert f"note: the checkpoint {last} is damaged: state.safetensors is not as it was" in said
    assert "written; going on from the one before" in said
    assert "at step 4" in said
    assert results(run) == results(trained)
    assert main(["train", "--resume", str(run)]) == 0
    assert "damaged" not in capsys.readouterr().out


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_left_as_it_is(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for state in run.glob("checkpoints/*/state.json"):
        state.write_bytes(b"")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert main(["train", "--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is damaged: state.json is not as it was written; there is no other" in error
    assert before == {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_damaged_best_checkpoint_is_written_again(
    run: Path, trained: Path, how: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGES[how](run / "checkpoints" / "best" / name)
    assert main(["train", "--resume", str(run)]) == 0
    assert "is damaged" in capsys.readouterr().out
    assert results(run) == results(trained)
    best = [load_tree(folder / "checkpoints" / "best") for folder in (run, trained)]
    assert best[0]["step"] == best[1]["step"]
    assert best[0]["val"] == best[1]["val"]


def test_a_crash_before_the_best_model_was_written_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best checkpoint is there, and the model that is to be the same is not."""

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(mtlkit.saving, "save_model", crash)
        assert main(["train", *SMALL, "--output", str(run)]) == 130
    assert main(["train", "--resume", str(run), "--max-steps", "2"]) == 0
    found = load_tree(run / "checkpoints" / "best")["model"]
    kept = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(found[name], kept[name]) for name in found)


def test_metrics_that_lost_lines_are_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.jsonl").write_text("")
    assert main(["train", "--resume", str(run), "--epochs", "4"]) == 0
    assert "metrics.jsonl has lost lines" in capsys.readouterr().out


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_configuration_is_named(
    run: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bit of it may well be another valid option: then it is the user's word that counts."""
    DAMAGES[how](run / "config.yaml")
    code = main(["train", "--resume", str(run)])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert code in (0, 2)
    assert how != "deleted" or "config.yaml" in error
