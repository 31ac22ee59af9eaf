"""An interval and what it says of zero."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autotune.core.interval import NOTHING, Interval

numbers = st.floats(-1e6, 1e6)


@given(numbers, numbers)
def test_zero_is_excluded_where_both_ends_have_the_same_sign(one: float, other: float) -> None:
    low, high = sorted((one, other))
    interval = Interval(value=(low + high) / 2, low=low, high=high)
    assert interval.excludes_zero is not (low <= 0 <= high)


@given(numbers)
def test_rounding_moves_a_value_by_half_a_millionth_at_most_and_once_only(value: float) -> None:
    rounded = Interval(value=value, low=value, high=value).rounded()
    assert abs(rounded.value - value) <= 0.51e-6
    assert rounded.rounded() == rounded


def test_nothing_leaves_the_sign_open() -> None:
    assert not NOTHING.excludes_zero


@pytest.mark.parametrize("value", ["0.5", None, True, float("nan"), float("inf")])
def test_files_hold_finite_numbers_only(value: object) -> None:
    with pytest.raises(ValidationError):
        Interval.model_validate_json(json.dumps({"value": value, "low": 0.0, "high": 1.0}))
