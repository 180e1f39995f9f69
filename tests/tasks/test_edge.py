import os
from pathlib import Path

import pytest
import torch
from kornia.filters import canny as kornias_canny
from made import SIZE, batch_for, images, make
from mtlkit_tasks._canny import canny
from mtlkit_tasks.edge import Edge
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor


def photograph(file: Path) -> torch.Tensor:
    with Image.open(file) as image:
        return pil_to_tensor(image.convert("RGB").resize((128, 128)))


def square(side: int = 32) -> torch.Tensor:
    image = torch.zeros(1, 3, side, side, dtype=torch.float64)
    image[..., side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    return image


@pytest.mark.parametrize("thresholds", [(0.1, 0.2), (0.3, 1.0), (1.0, 1.0)])
def test_followed_to_their_end_the_edges_are_kornias(thresholds: tuple[float, float]) -> None:
    low, high = thresholds
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 9, 12, generator=random, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, (64, 80), mode="bicubic").clamp(0, 1)
    for x in (smooth, images()):
        expected = kornias_canny(x, low, high)[1].bool()
        assert torch.equal(canny(x, low=low, high=high, reach=5000), expected)


def test_edges_of_photographs_hardly_change_when_followed_to_their_end() -> None:
    if "MTLKIT_TEST_DATA" not in os.environ:
        pytest.skip("MTLKIT_TEST_DATA does not name a folder with real images")
    folder = Path(os.environ["MTLKIT_TEST_DATA"]) / "oxford-iiit-pet" / "images"
    files = sorted(folder.glob("*.jpg"))[:8]
    photos = torch.stack([photograph(file) for file in files]).double() / 255
    expected = kornias_canny(photos, 0.1, 0.2)[1]
    found = make(Edge).make_target(photos)
    assert 0.05 < found.mean() < 0.3
    assert (found != expected).double().sum() < 0.005 * expected.sum()


def test_a_square_has_one_closed_thin_outline() -> None:
    edges = make(Edge).make_target(square())[0, 0]
    assert edges[16].sum() == edges[:, 16].sum() == 2
    assert edges[12:20, 12:20].sum() == 0
    assert set(edges.unique().tolist()) == {0, 1}


def test_weak_edges_are_followed_only_as_far_as_asked() -> None:
    image = torch.zeros(1, 3, 20, 60, dtype=torch.float64)
    image[..., 10:, :] = 1 - torch.arange(60) / 70
    lengths = [
        canny(image, low=0.1, high=2.3, reach=reach).any(2).sum().item() for reach in (0, 7, 20)
    ]
    assert lengths[1] - lengths[0] == 7
    assert lengths[2] - lengths[0] == 20


def test_a_flat_image_has_no_edges() -> None:
    assert make(Edge).make_target(torch.full((2, 3, *SIZE), 0.7)).sum() == 0


def test_targets_are_made_without_waiting_for_the_device() -> None:
    target = make(Edge).make_target(images(dtype=torch.float32).to("meta"))
    assert target.shape == (6, 1, *SIZE)


@pytest.mark.parametrize("loss", ["l1", "bce"])
def test_the_loss_is_over_pixels(loss: str) -> None:
    task = make(Edge, loss=loss)
    prediction, target, present = batch_for(task)
    p, t = prediction[present], target[present]
    sure = torch.where(t == 1, p, -p).sigmoid()
    expected = (p - t).abs().sum() if loss == "l1" else -sure.log().sum()
    total, count = task.loss(prediction, target, present)
    torch.testing.assert_close(total, expected)
    assert count == 4 * 16 * 24


@pytest.mark.parametrize(("loss", "threshold"), [("l1", 0.5), ("bce", 0.0)])
def test_f1_of_edge_pixels(loss: str, threshold: float) -> None:
    task = make(Edge, loss=loss)
    prediction, target, present = batch_for(task)
    metric = task.metric()
    task.update(metric, prediction, target, present)
    guess, truth = prediction[present] >= threshold, target[present].bool()
    hits = (guess & truth).sum().item()
    expected = 2 * hits / (guess.sum() + truth.sum()).item()
    assert metric.compute() == {"f1": pytest.approx(expected)}


def test_edges_are_drawn_bright_at_the_pictures_size() -> None:
    picture = torch.zeros(3, 50, 70, dtype=torch.uint8)
    for loss, raw in (("l1", 1.5), ("bce", 50.0)):
        task = make(Edge, loss=loss)
        drawn = task.draw(picture, task.decode(torch.full((1, *SIZE), raw), picture))
        assert torch.equal(drawn, torch.full_like(picture, 255))
    assert task.decode_target(torch.zeros(1, *SIZE), picture)["edges"].sum() == 0


@pytest.mark.parametrize("options", [{"low": 0}, {"low": 0.3, "high": 0.2}])
def test_thresholds_in_the_wrong_order_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="thresholds must be 0 < low <= high, but got"):
        make(Edge, **options)


def test_a_negative_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="reach must not be negative, but got -1"):
        make(Edge, reach=-1)
