"""Image and labels move together, as torchvision's transforms would move them."""

import math

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from mtlkit.data import Quantity
from mtlkit.geometry import LEAST_SHARE, RATIOS, Augment, Size, View, draw, smallest_image

SIZES = [(40, 60), (61, 33), (20, 90), (90, 15), (32, 48)]


def plain(augment: Augment, size: Size) -> v2.Transform:
    """The same as a chain of torchvision's transforms, which draw from the global generator."""
    steps: list[v2.Transform] = [v2.Resize(size)]
    if augment != "none":
        crop = v2.RandomResizedCrop(size, scale=(LEAST_SHARE[augment], 1.0), ratio=RATIOS)
        steps = [crop, v2.RandomHorizontalFlip()]
    if augment == "strong":
        steps.append(v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05))
    return v2.Compose([*steps, v2.ClampBoundingBoxes()])


def made(size: Size, seed: int) -> dict[str, torch.Tensor]:
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    edges = [[0.3 * width, 0.2 * height, 0.8 * width, 0.9 * height]]
    return {
        "image": tv_tensors.Image(pixels.permute(2, 0, 1)),
        "mask": tv_tensors.Mask(pixels[..., 0].contiguous()),
        "long": tv_tensors.Mask(pixels[..., 1].long()),
        "map": tv_tensors.Mask(torch.rand((2, height, width), generator=generator)),
        "box": tv_tensors.BoundingBoxes(edges, format="XYXY", canvas_size=size),
    }


@pytest.mark.parametrize("augment", ["none", "light", "strong"])
@pytest.mark.parametrize("size", SIZES)
def test_a_view_is_what_torchvisions_transforms_make(augment: Augment, size: Size) -> None:
    wanted = (32, 48)
    for seed in range(12):
        sample = made(size, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = plain(augment, wanted)(sample)
        view = draw(augment, size, torch.Generator().manual_seed(seed))
        assert torch.equal(view.image(sample["image"], wanted), expected["image"])
        for name in ("mask", "long", "map"):
            assert torch.equal(view.mask(sample[name], wanted), expected[name])
        box = torch.tensor(view.box(sample["box"])) * torch.tensor([48, 32, 48, 32])
        torch.testing.assert_close(box, expected["box"][0].as_subclass(torch.Tensor))


def test_what_comes_out_are_plain_tensors() -> None:
    sample, view = made((32, 48), 0), View(0, 0, 32, 48, True)
    assert type(view.image(sample["image"], (32, 48))) is torch.Tensor
    assert type(view.mask(sample["mask"], (32, 48))) is torch.Tensor


def test_an_image_that_is_too_long_for_any_crop_shows_its_middle() -> None:
    view = draw("light", (10, 100), torch.Generator().manual_seed(0))
    assert view[:4] == (0, 44, 10, 12)
    assert draw("light", (100, 10), torch.Generator().manual_seed(0))[:4] == (44, 0, 12, 10)


@pytest.mark.parametrize("augment", ["light", "strong"])
@pytest.mark.parametrize("longer", [1.0, 1.3, 2.2, 5.0])
@pytest.mark.parametrize("turned", [False, True])
def test_no_part_of_the_smallest_image_is_below_the_size(
    augment: Augment, longer: float, turned: bool
) -> None:
    size = (64, 96)
    height, width = smallest_image(augment, size)
    if turned:
        height = math.ceil(longer * height)
    else:
        width = math.ceil(longer * width)
    generator = torch.Generator().manual_seed(0)
    views = [draw(augment, (height, width), generator) for _ in range(400)]
    assert min(view.height for view in views) >= size[0]
    assert min(view.width for view in views) >= size[1]
    if longer == 1.0:
        assert min(min(view.height, view.width) for view in views) < 1.25 * size[1]


def test_without_augmentation_the_smallest_image_is_the_size_itself() -> None:
    assert smallest_image("none", (64, 96)) == (64, 96)


WHOLE = (40, 60)
VIEWS = [
    View(0, 0, 40, 60),
    View(0, 0, 40, 60, mirrored=True),
    View(5, 9, 20, 30),
    View(5, 9, 30, 24, mirrored=True),
    View(0, 0, 10, 60),
]


def seen(view: View, vector: list[float], quantity: Quantity) -> torch.Tensor:
    """One value of a map that has the same everywhere, but nothing in its last column."""
    values = torch.tensor(vector)[:, None, None].repeat(1, *WHOLE)
    values[..., -1] = 0
    shown = view.map(tv_tensors.Mask(values), (32, 48), quantity)
    assert type(shown) is torch.Tensor
    assert shown.dtype == torch.float32
    inside = shown[:, :, 3:45]
    assert torch.equal(inside, inside[:, :1, :1].expand_as(inside))
    return inside[:, 0, 0]


@pytest.mark.parametrize("view", VIEWS)
def test_what_is_enlarged_is_as_near_as_the_enlargement_says(view: View) -> None:
    shown = (view.height / 40) * (view.width / 60)  # of the image's area
    [depth] = seen(view, [3.0], "distance").tolist()
    [inverse] = seen(view, [1 / 3.0], "inverse-distance").tolist()
    assert depth == pytest.approx(3 * math.sqrt(shown))
    assert depth * inverse == pytest.approx(1)
    assert seen(view, [3.0], "plain").tolist() == [3]


@pytest.mark.parametrize("view", VIEWS)
def test_normals_are_those_of_the_mirrored_and_stretched_surface(view: View) -> None:
    def of_plane(along_rows: float, along_columns: float) -> torch.Tensor:
        normal = torch.tensor([-along_rows, -along_columns, 1.0])
        return normal / normal.norm()

    slope, steep = 0.7, -0.4  # how z grows with x and y
    wider = math.sqrt((60 / view.width) / (40 / view.height))  # than high, by its square
    expected = of_plane((-1 if view.mirrored else 1) * slope / wider, steep * wider)
    found = seen(view, of_plane(slope, steep).tolist(), "direction")
    torch.testing.assert_close(found, expected)
    assert found.norm() == pytest.approx(1)


@pytest.mark.parametrize("quantity", ["distance", "inverse-distance", "direction"])
@pytest.mark.parametrize("view", VIEWS)
def test_what_was_not_measured_stays_0(view: View, quantity: Quantity) -> None:
    assert seen(view, [0.0, 0.0, 0.0], quantity).eq(0).all()


def test_without_augmentation_a_map_is_as_it_was() -> None:
    values = torch.randn(3, *WHOLE)
    view = draw("none", WHOLE, torch.Generator())
    for quantity in ("plain", "distance", "inverse-distance", "direction"):
        assert torch.equal(view.map(values, WHOLE, quantity), values)
