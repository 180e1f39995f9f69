import math

import pytest
import torch
from mtlkit_tasks._image import picture, psnr, resized, ssim
from torchmetrics.functional.image import structural_similarity_index_measure


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    clean = torch.rand(3, 3, 20, 33, generator=random, dtype=torch.float64)
    noise = torch.randn(clean.shape, generator=random, dtype=torch.float64)
    return (clean + 0.1 * noise).clamp(0, 1), clean


def test_ssim_is_torchmetrics_for_each_image() -> None:
    noisy, clean = pair()
    expected = structural_similarity_index_measure(noisy, clean, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(noisy, clean), expected)
    torch.testing.assert_close(ssim(clean, clean), torch.ones(3, dtype=torch.float64))


def test_psnr_is_that_of_each_image_and_at_most_100() -> None:
    noisy, clean = pair()
    expected = [
        10 * math.log10(1 / (n - c).square().mean().item())
        for n, c in zip(noisy, clean, strict=False)
    ]
    assert psnr(noisy, clean).tolist() == pytest.approx(expected)
    assert psnr(clean, clean).tolist() == [100] * 3


def test_a_picture_is_rounded_and_clipped() -> None:
    image = torch.tensor([-1.0, 0.5, 0.999, 3.0]).view(1, 1, 4)
    assert picture(image)[:, 0].tolist() == [[0, 128, 255, 255]] * 3


def test_resizing_down_averages_instead_of_skipping_pixels() -> None:
    checkers = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float()[None]
    small = resized(checkers, torch.zeros(3, 8, 8))
    torch.testing.assert_close(small, torch.full((1, 8, 8), 0.5), atol=0.02, rtol=0)
    assert resized(checkers, torch.zeros(3, 64, 64)) is checkers
