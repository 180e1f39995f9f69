"""Intervals against scipy's Student t, and with numbers that are missing."""

import math

import pytest
import torch
from scipy.stats import t as student

from mtlkit.affinity.interval import estimate
from mtlkit.student import t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 30, 199])
def test_quantiles_are_those_of_students_t(freedom: int) -> None:
    assert t_quantile(freedom) == pytest.approx(student.ppf(0.975, freedom), rel=1e-12)


def test_the_interval_is_the_textbooks() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 7.0])
    found = estimate(values)
    low, high = student.interval(0.95, 3, loc=3.5, scale=values.std().item() / 2)
    assert found.mean.item() == 3.5
    assert found.half.item() == pytest.approx((high - low) / 2, rel=1e-7)
    assert found.sd.item() == pytest.approx(values.std().item())


def test_what_is_not_known_counts_nowhere() -> None:
    nan = math.nan
    found = estimate(torch.tensor([[1.0, nan, nan], [3.0, 5.0, nan], [nan, math.inf, nan]]))
    assert found.known.tolist() == [2, 1, 0]
    assert found.mean[:2].tolist() == [2, 5]
    assert found.half[0].item() == pytest.approx(student.ppf(0.975, 1))
    assert found.half[1:].isnan().all()
    assert found.mean[2].isnan()


def test_one_number_alone_is_never_sure() -> None:
    assert not estimate(torch.tensor([5.0])).sure
    assert estimate(torch.tensor([5.0, 5.1])).sure
    assert not estimate(torch.tensor([-1.0, 5.0])).sure
