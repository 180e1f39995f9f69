"""Relative gains, intervals and tests, against numbers worked out by hand."""

import math

import pytest
from scipy import stats

from mtlkit.report.compare import (
    delta_by_task,
    delta_flat,
    holm,
    interval,
    relative_gain,
    sign_flip,
    smallest_p,
)


def test_delta_by_hand() -> None:
    higher = {"a/x": True, "a/y": False, "b/z": True}
    base, found = {"a/x": 0.5, "a/y": 10.0, "b/z": 0.8}, {"a/x": 0.6, "a/y": 11.0, "b/z": 0.6}
    # gains in percent: 20, -10, -25
    assert delta_flat(found, base, higher) == pytest.approx(5)
    assert delta_by_task(found, base, higher) == pytest.approx((5 - 25) / 2)


def test_a_gain_on_nothing_is_no_number() -> None:
    assert math.isnan(relative_gain(1.0, 0.0, higher_is_better=True))
    assert relative_gain(-1.0, -2.0, higher_is_better=True) == 50


def test_an_interval_by_hand() -> None:
    found = interval([1.0, 2.0, 3.0])  # standard deviation 1
    assert found.mean == 2
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert not found.clear
    assert interval([10.0, 10.1, 9.9]).clear
    assert interval([-10.0, -10.1, -9.9]).clear


def test_one_value_has_no_interval() -> None:
    assert interval([3.0]) == (3.0, None, None)
    assert not interval([3.0]).clear


@pytest.mark.parametrize("n", [1, 2, 5, 6, 10])
def test_no_number_of_seeds_gives_less_than_its_smallest_p(n: int) -> None:
    assert sign_flip([float(i + 1) for i in range(n)]) == smallest_p(n) == 2 / 2**n


def test_five_seeds_cannot_reach_the_usual_level_and_six_can() -> None:
    assert smallest_p(5) == 0.0625
    assert smallest_p(6) == 0.03125
    assert smallest_p(6, comparisons=3) == 0.09375
    assert smallest_p(2, comparisons=3) == 1


def test_a_sign_flip_test_by_hand() -> None:
    # sums of 1, 2, -4 with all signs: 7 5 3 1 and their negatives, each once: |sum| >= 1 always
    assert sign_flip([1, 2, -4]) == 1
    # of 3, 2, -1: 6 4 2 0 0 2 4 6 in absolute value; 4 or more in four of eight
    assert sign_flip([3, 2, -1]) == 0.5
    assert sign_flip([0.0, 0.0]) == 1


def test_many_pairs_are_drawn_and_always_alike() -> None:
    differences = [1.0, -0.5] * 10
    expected = stats.permutation_test(
        (differences,), lambda x: sum(x), permutation_type="samples", n_resamples=50_000, rng=0
    ).pvalue
    assert sign_flip(differences) == pytest.approx(expected, abs=0.01)
    assert sign_flip(differences) == sign_flip(differences)


def test_holms_correction_by_hand() -> None:
    # 3 x 0.01; 2 x 0.03; 0.04 would be less than the one before it
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
