"""What was saved comes back bit by bit, and a crash loses nothing."""

from pathlib import Path

import pytest
import torch

from mtlkit.checkpoint import load_tree, read_model, save_model, save_tree
from mtlkit.errors import CheckpointError


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    tree = {
        "a": torch.tensor([1.5, 2.5], dtype=torch.float64),
        "state": {0: {"step": torch.tensor(3.0), "on": True}, 1: {}},
        "list": [1, 2.5, None, "x"],
        "infinite": float("-inf"),
    }
    save_tree(tmp_path / "last", tree)
    loaded = load_tree(tmp_path / "last")
    assert torch.equal(loaded.pop("a"), tree.pop("a"))
    assert torch.equal(loaded["state"][0].pop("step"), tree["state"][0].pop("step"))
    assert loaded == tree


def test_an_optimiser_goes_on_as_if_it_had_not_been_saved(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)

    def step(layer: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    layer, optimizer = make()
    step(layer, optimizer)
    save_tree(tmp_path / "last", {"m": layer.state_dict(), "o": optimizer.state_dict()})
    step(layer, optimizer)
    other, resumed = make()
    tree = load_tree(tmp_path / "last")
    other.load_state_dict(tree["m"])
    resumed.load_state_dict(tree["o"])
    step(other, resumed)
    assert torch.equal(layer.weight, other.weight)


def test_a_crash_while_saving_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "last"
    save_tree(folder, {"step": 1})

    def crash(self: Path, target: Path) -> None:
        if self.name == "last.new":
            raise KeyboardInterrupt
        original(self, target)

    original = Path.rename
    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        save_tree(folder, {"step": 2})
    assert load_tree(folder) == {"step": 1}
    monkeypatch.undo()
    save_tree(folder, {"step": 3})
    assert load_tree(folder) == {"step": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


def test_what_cannot_be_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold set"):
        save_tree(tmp_path / "last", {"a": {1, 2}})


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model in"):
        read_model(tmp_path)


def test_a_model_is_read_from_its_own_folder_and_from_its_runs(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    save_model(tmp_path / "model", layer, {"a": 1})
    for place in (tmp_path, tmp_path / "model"):
        config, state = read_model(place)
        assert config == {"a": 1}
        assert torch.equal(state["weight"], layer.weight)
