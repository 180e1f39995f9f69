"""Attention in numbers, on masks whose numbers are known, and its picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from toys import SIZE, ToyBackbone, ToyData, ToyHead, toy_model

from mtlkit import Model, TargetSpec
from mtlkit.affinity.attention import check, masks_of, measure, picture, shares
from mtlkit.errors import ConfigError

MASK = TargetSpec("mask", classes=("ground", "thing", "other"))
BOX = TargetSpec("box")
LABELS = {"what": MASK, "where": BOX, "sort": TargetSpec("class", classes=("x", "y"))}


class Looking(ToyBackbone):
    """Masks that are made from the first channel of the image, not normalised."""

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def attention(self, images: Tensor, /) -> dict[str, list[Tensor]]:
        heat = images[:, :1]
        small = torch.nn.functional.avg_pool2d(heat, 4)
        return {
            "a": [heat.expand(-1, 2, -1, -1), small],
            "b": [torch.cat((heat, 0.5 * heat), 1), small],
            "c": [1 - heat.expand(-1, 2, -1, -1)],
        }


def model() -> Model:
    plain = toy_model(ToyData().spec, ("a", "b", "c"))
    backbone = Looking(("a", "b", "c"))
    heads = {id: ToyHead(backbone.spec, task.out_channels) for id, task in plain.tasks.items()}
    return Model(list(plain.tasks.values()), backbone, heads, image_size=SIZE)


def batch(present: Sequence[bool] = (True, True)) -> dict[str, Any]:
    """Two pictures, white in the upper half; a thing is there, and a box around the left half."""
    image = torch.zeros(2, 3, *SIZE, dtype=torch.uint8)
    image[:, :, :4] = 255
    what = torch.zeros(2, *SIZE, dtype=torch.uint8)
    what[:, :4] = torch.tensor([1, 2]).repeat(4)
    what[:, :, 7] = MASK.ignore_index
    where = torch.tensor([[0.0, 0.0, 0.5, 1.0]]).expand(2, 4)
    flags = torch.tensor(present)
    return {
        "image": image,
        "id": ["one", "two"],
        "seeds": torch.zeros(2, dtype=torch.int64),
        "targets": {"what": what, "where": where, "sort": torch.zeros(2, dtype=torch.int64)},
        "present": {"what": flags, "where": torch.tensor([True, True]), "sort": flags},
    }


def means(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value.mean) for name, value in values.items()}


def test_numbers_are_those_of_the_masks() -> None:
    first, second = measure(model(), [batch(), batch()], LABELS)
    assert (first.size, second.size) == ((8, 8), (2, 2))
    assert means(first.tasks["a"]) == pytest.approx(
        {"level": 0.5, "spread": 0.5, "spread over positions": 0.5, "in what": 1.0, "in where": 0.0}
    )
    assert means(first.tasks["c"])["in what"] == pytest.approx(-1)
    halved = means(first.tasks["b"])  # one channel of 0 and 1, one of 0 and 1/2
    assert halved["level"] == pytest.approx(0.375)
    assert halved["spread over positions"] == pytest.approx((0.5 + 0.25) / 2)
    assert halved["spread"] == pytest.approx(torch.tensor([0, 0, 1, 0.5]).std(correction=0).item())
    assert first.tasks["a"]["in what"].known.item() == 4
    assert means(first.similarity) == pytest.approx(
        {"a+b": 0.9045340, "a+c": -1, "b+c": -0.9045340}, abs=1e-6
    )
    assert means(second.similarity) == pytest.approx({"a+b": 1})


def test_pictures_without_a_label_count_nowhere() -> None:
    first, _ = measure(model(), [batch((False, True)), batch((False, False))], LABELS)
    assert first.tasks["a"]["in what"].known.item() == 1
    assert first.tasks["a"]["in where"].known.item() == 4


def test_cells_of_a_grid_are_shared_out_exactly() -> None:
    box = torch.tensor([[0.25, 0.1, 0.75, 0.6], [0.0, 0.0, 1.0, 1.0]])
    inside, outside = shares(box, BOX, (5, 2))
    rows = torch.tensor([0.5, 1, 1, 0, 0])
    torch.testing.assert_close(inside[0], rows[:, None] * torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(inside + outside, torch.ones(2, 5, 2))
    assert (inside[1] == 1).all()
    mask = torch.tensor([[[0, 1, 255, 255], [2, 1, 0, 255]]])
    inside, outside = shares(mask, MASK, (1, 2))
    assert inside.tolist() == [[[0.75, 0.0]]]
    assert outside.tolist() == [[[0.25, 0.25]]]


def test_a_look_at_the_masks_leaves_the_model_as_it_was() -> None:
    looked = model().train()
    inputs = looked.inputs(torch.rand(2, 3, *SIZE))
    assert {task: len(masks) for task, masks in masks_of(looked, inputs).items()} == {
        "a": 2, "b": 2, "c": 1
    }  # fmt: skip
    assert looked.training


def test_a_backbone_without_attention_is_refused() -> None:
    check(model(), "looking")
    message = (
        "backbone 'toy' has no attention; leave out --attention, or name a --backbone whose tasks "
        "have masks"
    )
    with pytest.raises(ConfigError) as caught:
        check(toy_model(ToyData().spec), "toy")
    assert str(caught.value) == message


def test_the_picture_has_a_row_for_each_task_of_each_sample(tmp_path: Path) -> None:
    sizes = []
    for present in ((True, True), (False, False)):
        file = tmp_path / f"{present[0]}.png"
        picture(file, model(), batch(present), LABELS)
        with Image.open(file) as image:
            sizes.append(image.size)
            colours = image.convert("RGB").getcolors(2**20)
        assert colours is not None
        assert len(colours) > 50
    assert sizes[0] == sizes[1]
    assert (tmp_path / "True.png").read_bytes() != (tmp_path / "False.png").read_bytes()
