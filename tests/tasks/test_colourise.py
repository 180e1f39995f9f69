import pytest
import torch
from made import SIZE, batch_for, images, make
from mtlkit_tasks.colourise import Colourise
from torchmetrics.functional.image import peak_signal_noise_ratio

# CIE Lab of sRGB colours under D65, from Lindbloom's calculator
KNOWN = {
    (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
    (0.0, 1.0, 0.0): (87.74, -86.18, 83.18),
    (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
    (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
}


@pytest.mark.parametrize(("rgb", "lab"), KNOWN.items())
def test_view_and_target_are_scaled_lab(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    image = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    task = make(Colourise)
    target = task.make_target(image)[0, :, 0, 0]
    scale = torch.tensor([100, 110, 110])
    torch.testing.assert_close(target * scale, torch.tensor(lab).double(), atol=0.05, rtol=0)
    assert task.view(image, None)[0, 0, 0, 0].item() == pytest.approx(lab[0] / 100, abs=5e-4)


def test_true_colours_and_brightness_give_the_picture_back() -> None:
    picture = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
    task = make(Colourise)
    target = task.make_target(picture[None].double() / 255)[0]
    for decoded in (task.decode_target(target, picture), task.decode(target[1:], picture)):
        back = task.draw(picture, decoded)
        assert (back.int() - picture.int()).abs().max() <= 1


def test_a_picture_keeps_its_own_detail_when_it_is_larger_than_the_input() -> None:
    large = torch.randint(0, 256, (1, 60, 80), dtype=torch.uint8).expand(3, -1, -1)
    back = make(Colourise).decode(torch.zeros(2, *SIZE), large)["image"]
    assert (back.int() - large.int()).abs().max() <= 1


def test_the_loss_is_over_the_two_colour_channels() -> None:
    task = make(Colourise)
    prediction, target, present = batch_for(task)
    total, count = task.loss(prediction, target, present)
    torch.testing.assert_close(total, (prediction - target[:, 1:])[present].abs().sum())
    assert count == 4 * 2 * 16 * 24


def test_psnr_is_that_of_the_rgb_images() -> None:
    task = make(Colourise)
    clean = images(2)
    target = task.make_target(clean)
    grey = torch.zeros(2, 2, *SIZE, dtype=torch.float64)
    metric = task.metric()
    task.update(metric, grey, target, torch.tensor([True, True]))
    shown = [
        task.decode(ab, (image * 255).round().byte())["image"] / 255
        for ab, image in zip(grey, clean, strict=True)
    ]
    expected = peak_signal_noise_ratio(
        torch.stack(shown).double(), clean, 1.0, reduction="elementwise_mean", dim=(1, 2, 3)
    )
    assert metric.compute()["psnr"].item() == pytest.approx(expected.item(), abs=0.02)
    perfect = task.metric()
    task.update(perfect, target[:, 1:], target, torch.tensor([True, True]))
    assert perfect.compute()["psnr"] == 100
