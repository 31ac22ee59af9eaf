"""Budgets: what is understood, what is refused, and with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.cost import parse_budget
from autotune.errors import InputError


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("40%", 400),
        (" 40 % ", 400),
        ("12.5%", 125),
        ("100%", 1000),
        ("1.2TFLOPs", 12 * 10**11),
        ("500gflop", 5 * 10**11),
    ],
)
def test_budgets_are_understood(text: str, limit: int) -> None:
    assert parse_budget(text).limit(1000) == limit


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0%", "above 0%"),
        ("140%", "at most at 100%"),
        ("-40%", "not understood"),
        ("abc", "not understood"),
        ("", "not understood"),
        ("40", "not understood"),
        ("40%%", "not understood"),
        ("0GFLOPs", "nothing to compute"),
        ("850ms", "needs a hardware profile"),
        ("40%ms", "needs a hardware profile"),
        ("2x", "needs a hardware profile"),
        ("1e3%", "not understood"),
    ],
)
def test_others_are_refused_with_an_example(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_budget(text)


@given(st.integers(1, 10_000), st.integers(1, 10**15))
def test_a_share_is_exact_and_never_rounded_up(hundredths: int, full: int) -> None:
    limit = parse_budget(f"{hundredths // 100}.{hundredths % 100:02d}%").limit(full)
    assert limit * 10_000 <= hundredths * full < (limit + 1) * 10_000


@given(st.text(max_size=12))
def test_nothing_but_an_input_error_ever_escapes(text: str) -> None:
    try:
        parse_budget(text)
    except InputError as error:
        assert "\n" not in str(error).replace(repr(text.strip()), "")
