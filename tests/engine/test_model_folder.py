"""What was saved comes back; tests/faults has what strangers write."""

from pathlib import Path

import pytest
import torch

from mtlkit.errors import CheckpointError
from mtlkit.model_folder import read_model, save_model


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model in"):
        read_model(tmp_path)


def test_a_model_is_read_from_its_own_folder_and_from_its_runs(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    save_model(tmp_path / "model", layer, {"a": 1})
    for place in (tmp_path, tmp_path / "model"):
        config, weights = read_model(place)
        assert config == {"a": 1}
        assert weights.bytes == 24
        other = torch.nn.Linear(2, 2)
        weights.load_into(other)
        assert torch.equal(other.weight, layer.weight)


def test_a_link_to_a_file_of_the_same_folder_is_followed(tmp_path: Path) -> None:
    save_model(tmp_path / "model", torch.nn.Linear(2, 2), {})
    whole = tmp_path / "model" / "model.safetensors"
    whole.rename(tmp_path / "weights")
    whole.symlink_to(tmp_path / "weights")
    assert read_model(tmp_path)[1].bytes == 24
    with pytest.raises(CheckpointError, match="is a link that leaves the folder"):
        read_model(tmp_path / "model")
