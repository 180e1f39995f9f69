"""What looks come to: words, tables and splits, from matrices that are known."""

import math
from collections.abc import Sequence
from itertools import chain

import pytest
import torch

from mtlkit.affinity.effects import Effects, agree, gather, logged, splits
from mtlkit.affinity.interval import Estimate
from mtlkit.affinity.lookahead import Look

IDS = ("seg", "cls", "bbox")


def effects(
    mean: Sequence[Sequence[float]], half: float = 0.001, ids: Sequence[str] = IDS
) -> Effects:
    values = torch.tensor(mean, dtype=torch.float64)
    spread = torch.full_like(values, half)
    effect = Estimate(values, spread, spread, torch.full_like(values, 9))
    cosines = torch.zeros(2, len(ids), len(ids))
    return Effects(ids, effect, {"all": agree(cosines)})


def test_the_answer_names_the_largest_effects_first() -> None:
    found = effects([[0.5, 0.0002, 0.003], [-0.004, 0.5, 0.0], [0.012, 0.0, 0.5]])
    assert found.sentence() == (
        "bbox helps seg (+1.2 %), cls hurts seg (-0.4 %), seg helps bbox (+0.3 %); "
        "effects within noise are shown as ."
    )


def test_nothing_but_noise_is_said_to_be_noise() -> None:
    assert effects([[0.5, 0.1, 0.1], [0.1, 0.5, 0.1], [0.1, 0.1, 0.5]], half=0.2).sentence() == (
        "no task's step changes another task's loss by more than noise; "
        "effects within noise are shown as ."
    )


def test_of_many_effects_some_are_named() -> None:
    mean = [[0.01 * (i + 1) for _ in range(4)] for i in range(4)]
    sentence = effects(mean, ids="pqrs").sentence()
    assert sentence.startswith("s helps p (+4 %), s helps q (+4 %), s helps r (+4 %), r helps p")
    assert sentence.endswith(", and 6 more")


def test_numbers_have_decimals_that_suit_their_row() -> None:
    found = effects([[0.5, 0.0, 0.03], [0.00002, 0.5, -0.00005], [0.0, 0.0, 0.5]], half=0.00001)
    assert [line.split() for line in found.effect_table().splitlines()] == [
        ["seg", "cls", "bbox"],
        ["seg", "+50.0", "±0.0", ".", "±0.0", "+3.0", "±0.0"],
        ["cls", "+0.0020", "±0.0010", "+50.0000", "±0.0010", "-0.0050", "±0.0010"],
        ["bbox", ".", "±0.0010", ".", "±0.0010", "+50.0000", "±0.0010"],
    ]


def test_the_table_of_agreement_counts_conflicts() -> None:
    cosines = torch.tensor([0.5, -0.1, -0.1])[:, None, None].expand(3, 2, 2)
    found = Effects(("a", "b"), effects([[0.0]]).effect, {"all": agree(cosines)})
    assert found.agreement_table().splitlines()[1].split() == ["a+b", "+0.10", "sd", "0.35,", "67%"]


def test_looks_are_gathered_without_what_is_not_known() -> None:
    looks = [
        Look(step, torch.ones(2), torch.full((2, 2), value), {"all": torch.full((2, 2), value)},
             torch.ones(2))
        for step, value in enumerate((0.1, -0.3, math.nan))
    ]  # fmt: skip
    found = gather(looks, ("a", "b"))
    assert found.effect.mean[0, 1].item() == pytest.approx(-0.1)
    assert found.effect.known[0, 1].item() == 2
    assert found.agreement["all"].conflicts[0, 1].item() == 0.5


def test_cosines_are_read_from_the_log() -> None:
    history = [
        {"step": 1, "seg/loss": 1.0},
        {"step": 2, "seg+cls/cosine": 0.5, "seg+bbox/cosine": -0.25, "cls+bbox/cosine": None},
        {"step": 3, "seg+cls/cosine": -0.1, "seg+bbox/cosine": -0.75, "cls+bbox/cosine": 1.0},
    ]
    found = logged(history, IDS)
    assert found is not None
    assert found.cosine.mean[0, 1].item() == pytest.approx(0.2)
    assert found.cosine.mean[2, 0].item() == -0.5
    assert found.cosine.known[1, 2].item() == 1
    assert (found.conflicts[0, 1], found.conflicts[0, 2]) == (0.5, 1)
    assert logged(history[:1], IDS) is None


def test_every_split_is_there_once() -> None:
    for size, bell in enumerate((1, 1, 2, 5, 15, 52, 203)):
        found = list(splits(size, size))
        assert len(found) == bell
        assert len({frozenset(map(tuple, groups)) for groups in found}) == bell
        assert all(sorted(chain(*groups)) == list(range(size)) for groups in found)
    assert len(list(splits(4, 2))) == 8


def test_the_best_split_keeps_friends_together() -> None:
    mean = [[0.9, 0.02, -0.03, 0], [0.01, 0.9, 0, -0.02], [-0.01, 0, 0.9, 0.04], [0, 0, 0.03, 0.9]]
    found = effects(mean, ids="pqrs")
    best = found.best_split(2)
    assert best is not None
    assert best.groups == [[0, 1], [2, 3]]
    assert best.total == pytest.approx(0.02 + 0.01 + 0.04 + 0.03)
    one = found.best_split(1)
    assert one is not None
    assert one.groups == [[0, 1, 2, 3]]
    assert one.total == pytest.approx((0.01 - 0.01 + 0.02 - 0.03 + 0.03 + 0.04 - 0.02) / 3)


def test_noise_splits_nothing() -> None:
    best = effects([[0.9, -0.1, -0.1], [-0.1, 0.9, -0.1], [-0.1, -0.1, 0.9]], half=0.2).best_split(
        3
    )
    assert best is not None
    assert best.groups == [[0, 1, 2]]


def test_too_many_tasks_are_not_split() -> None:
    assert effects([[0.1] * 9] * 9, ids="abcdefghi").best_split(2) is None
