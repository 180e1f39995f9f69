import pytest
import torch
from made import SIZE, batch_for, images, make
from mtlkit_tasks.denoise import Denoise

from mtlkit import seeded_normal


def test_the_view_has_the_noise_of_each_samples_seed_in_grey_levels() -> None:
    clean = images()
    seeds = torch.tensor([5, 6, 7, 8, 9, 10])
    noise = seeded_normal(seeds, (3, *SIZE), clean.device).double()
    expected = (clean * 255 + 5 + 2 * noise).clamp(0, 255) / 255
    torch.testing.assert_close(make(Denoise).view(clean, seeds), expected)
    expected = (clean * 255 + 1 + 40 * noise).clamp(0, 255) / 255
    torch.testing.assert_close(make(Denoise, mean=1, std=40).view(clean, seeds), expected)


def test_at_prediction_nothing_is_added() -> None:
    assert make(Denoise).view(images(), None) is not None
    assert torch.equal(make(Denoise).view(images(), None), images())


def test_noise_has_the_asked_mean_and_spread() -> None:
    grey = torch.full((4, 3, 64, 64), 0.5)
    noise = (make(Denoise).view(grey, torch.arange(4)) - grey) * 255
    assert noise.mean().item() == pytest.approx(5, abs=0.05)
    assert noise.std().item() == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_the_loss_is_over_pixels_and_channels(loss: str) -> None:
    task = make(Denoise, loss=loss)
    prediction, target, present = batch_for(task)
    assert torch.equal(target, images())
    error = (prediction - target)[present]
    expected = (error**2 if loss == "mse" else error.abs()).sum()
    total, count = task.loss(prediction, target, present)
    torch.testing.assert_close(total, expected)
    assert count == 4 * 3 * 16 * 24


def test_a_picture_is_decoded_at_its_own_size_and_replaces_it() -> None:
    task = make(Denoise)
    picture = torch.zeros(3, 50, 70, dtype=torch.uint8)
    half = torch.full((3, *SIZE), 0.5)
    half[0] = 7.0
    decoded = task.decode(half, picture)
    drawn = task.draw(picture, decoded)
    assert drawn.dtype == torch.uint8
    assert drawn.shape == picture.shape
    assert drawn[:, 20, 20].tolist() == [255, 128, 128]
    exact = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
    assert torch.equal(task.decode_target(exact / 255, exact)["image"], exact)


def test_a_negative_spread_is_refused() -> None:
    with pytest.raises(ValueError, match="std must not be negative, but got -1"):
        make(Denoise, std=-1)
