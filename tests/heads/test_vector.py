import subprocess
import sys

import pytest
import torch
from mtlkit_heads.linear import Linear
from mtlkit_heads.spatial import Spatial
from specs import SPECS, features

from mtlkit import Features, FeatureSpec


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("head_class", [Linear, Spatial])
@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_a_vector_head_fits_any_backbone_and_uses_all_its_parameters(
    spec: FeatureSpec, head_class: type, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    head = head_class(spec, 8)
    prediction = head(features(spec, size, batch=1), size)
    assert prediction.shape == (1, 8)
    assert prediction.min() < 0 < prediction.max()
    prediction.square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_linear_is_a_linear_function_of_the_average() -> None:
    spec = SPECS["convolutional"]
    head = Linear(spec, 2).double()
    given = features(spec, (64, 64), dtype=torch.float64)
    expected = given.levels[-1].mean((2, 3)) @ head.predict.weight.T + head.predict.bias
    torch.testing.assert_close(head(given, (64, 64)), expected)


def test_dropout_acts_in_training_only() -> None:
    spec = SPECS["convolutional"]
    given = features(spec, (64, 64))
    for head in (Linear(spec, 2, dropout=0.9), Spatial(spec, 2, dropout=0.9)):
        torch.manual_seed(0)
        assert not torch.equal(head(given, (64, 64)), head(given, (64, 64)))
        head.eval()
        assert torch.equal(head(given, (64, 64)), head(given, (64, 64)))


def test_spatial_learns_where_something_is_and_linear_cannot() -> None:
    spec = FeatureSpec((4,), (16,))
    random = torch.Generator().manual_seed(0)
    place = torch.randint(0, 4, (64, 2), generator=random)
    level = torch.zeros(64, 4, 4, 4)
    level[torch.arange(64), :, place[:, 0], place[:, 1]] = 1
    error = {}
    for head_class in (Linear, Spatial):
        torch.manual_seed(0)
        head = head_class(spec, 2)
        optimizer = torch.optim.Adam(head.parameters(), 0.003)
        for _ in range(100):
            loss = (head(Features((level,)), (64, 64)) - place / 4).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        error[head_class] = loss.item()
    assert error[Spatial] < 1e-3 < 0.05 < error[Linear]


def test_spatial_refuses_an_empty_grid() -> None:
    with pytest.raises(ValueError, match="at least 1, but got 2 and 0"):
        Spatial(SPECS["convolutional"], 4, grid=0)


def test_vector_heads_and_dense_do_not_import_segmentation_models() -> None:
    code = (
        "import sys, mtlkit_heads.linear, mtlkit_heads.spatial, mtlkit_heads.dense; "
        "sys.exit('segmentation_models_pytorch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_names_of_the_heads_are_known_without_torch() -> None:
    code = "import sys, mtlkit_heads; mtlkit_heads.mtlkit_heads(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
