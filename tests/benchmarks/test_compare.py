"""Numbers worked out by hand, and published ones recomputed from the rows they were made of."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.compare import (
    delta_by_task,
    delta_flat,
    holm,
    interval,
    relative_gain,
    sign_flip,
    smallest_p,
    t_quantile,
)

NYUV2 = yaml.safe_load(
    (Path(__file__).parents[2] / "benchmarks" / "published.yaml").read_text(encoding="utf-8")
)["nyuv2"]


def flat(tree: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{task}/{key}": value for task, inner in tree.items() for key, value in inner.items()}


HIGHER = {key: word == "higher" for key, word in flat(NYUV2["directions"]).items()}


@pytest.mark.parametrize(
    ("row", "a", "b"),
    [("equal", 5.59, 0.88), ("mgda", 1.38, -1.66), ("cagrad", 0.19, 4.33), ("nash", -4.05, 7.65)],
)
def test_both_forms_are_what_published_rows_give(row: str, a: float, b: float) -> None:
    scores, base = flat(NYUV2["rows"][row]), flat(NYUV2["single"])
    assert round(delta_flat(scores, base, HIGHER), 2) == a
    assert round(delta_by_task(scores, base, HIGHER), 2) == b
    assert (NYUV2["deltas"][row]["a"], NYUV2["deltas"][row]["b"]) == (a, b)


def test_a_task_counts_once_in_one_form_and_its_metrics_in_the_other() -> None:
    base = {"seg/miou": 0.5, "seg/f1": 0.5, "bbox/l2": 10.0}
    scores = {"seg/miou": 0.55, "seg/f1": 0.6, "bbox/l2": 12.0}  # +10, +20, -20 %
    higher = {"seg/miou": True, "seg/f1": True, "bbox/l2": False}
    assert delta_flat(scores, base, higher) == pytest.approx(-10 / 3)
    assert delta_by_task(scores, base, higher) == pytest.approx((15 - 20) / 2)


def test_nothing_is_relative_to_zero() -> None:
    assert math.isnan(relative_gain(0.5, 0, higher_is_better=True))


def test_a_gain_over_a_negative_number_is_a_gain() -> None:
    assert relative_gain(-1, -2, higher_is_better=True) == 50


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (10, 2.2281), (29, 2.0452)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, value: float) -> None:
    assert t_quantile(freedom) == pytest.approx(value, abs=5e-5)


def test_an_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])  # deviation 1, so half is 4.3027 / sqrt(3)
    assert found.mean == 2
    assert found.low == pytest.approx(2 - 2.48414, abs=1e-5)
    assert found.high == pytest.approx(2 + 2.48414, abs=1e-5)
    assert not found.clear
    assert interval([1.0, 1.1, 1.2]).clear


def test_one_value_has_no_interval() -> None:
    assert interval([2.0]) == (2.0, None, None)
    assert not interval([2.0]).clear


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3], 2 / 8),  # all signs alike: only +++ and --- reach 6
        ([-1, 2, 3], 4 / 8),  # 4: also +++ and ---
        ([1, -2, 3], 6 / 8),  # 2: all but the two with 0
        ([0.0, 0.0], 1.0),
        ([1, 2, 3, 4, 5, 6], 2 / 64),
        ([0.1, 0.2, -0.3], 1.0),
    ],
)
def test_all_signs_are_tried(differences: list[float], p: float) -> None:
    assert sign_flip(differences) == p


def test_the_smallest_p_is_said() -> None:
    assert smallest_p(5) == 0.0625
    assert smallest_p(6) == sign_flip([1.0] * 6) == 0.03125
    assert smallest_p(6, comparisons=24) == 0.75
    assert smallest_p(2, comparisons=24) == 1


def test_holm_corrects_the_smallest_most_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
