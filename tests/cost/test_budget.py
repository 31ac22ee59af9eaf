"""Budgets: what is understood, what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.core.errors import InputError
from autotune.cost import Cost, parse_budget, parse_bytes
from autotune.cost.budget import Limits


def cost(flops: int = 1000, latency_ms: float | None = 500.0, cache_bytes: int = 0, latent_bytes: int = 0) -> Cost:
    return Cost(flops, flops // 2, 1.0, latency_ms, cache_bytes, latent_bytes)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("40%", {"flops": 400}),
        (" 40 % ", {"flops": 400}),
        ("12.5%", {"flops": 125}),
        ("100%", {"flops": 1000}),
        ("1.2TFLOPs", {"flops": 12 * 10**11}),
        ("500gflop", {"flops": 5 * 10**11}),
        ("850ms", {"latency_ms": 850}),
        ("1.5s", {"latency_ms": 1500}),
        (".5 S", {"latency_ms": 500}),
        ("40%ms", {"latency_ms": 200}),
        ("40 % ms", {"latency_ms": 200}),
        ("2x", {"latency_ms": 250}),
        ("1x", {"latency_ms": 500}),
        ("2.5X", {"latency_ms": 200}),
        ("40%,1.2s", {"flops": 400, "latency_ms": 1200}),
        ("40%, 30%, 2x, 10%ms", {"flops": 300, "latency_ms": 50}),
    ],
)
def test_budgets_are_understood(text: str, limits: dict[str, Any]) -> None:
    assert parse_budget(text).limits(cost()) == Limits(**limits)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0%", "above 0%"),
        ("140%", "at most at 100%"),
        ("140%ms", "at most at 100%"),
        ("-40%", "not understood"),
        ("abc", "not understood"),
        ("", "not understood"),
        ("40", "not understood"),
        ("40%%", "not understood"),
        ("0GFLOPs", "nothing to compute"),
        ("0ms", "no time"),
        ("0.5x", "slower than the full run"),
        ("0x", "slower than the full run"),
        ("40%,", "'' in '40%,' is not understood"),
        ("40%,2y", "'2y' in '40%,2y' is not understood"),
        ("40%;2x", "not understood"),
        ("1e3%", "not understood"),
        ("1h", "not understood"),
    ],
)
def test_others_are_refused_with_an_example(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_budget(text)


@pytest.mark.parametrize("text", ["850ms", "40%ms", "2x", "40%,1.2s"])
def test_time_needs_a_profile(text: str) -> None:
    budget = parse_budget(text)
    assert budget.needs_latency
    with pytest.raises(InputError, match="hardware profile"):
        budget.limits(cost(latency_ms=None))


@given(st.integers(1, 10_000), st.integers(1, 10**15))
def test_a_share_is_exact_and_never_rounded_up(hundredths: int, full: int) -> None:
    limit = parse_budget(f"{hundredths // 100}.{hundredths % 100:02d}%").limits(cost(full)).flops
    assert limit is not None
    assert limit * 10_000 <= hundredths * full < (limit + 1) * 10_000


@given(st.text(max_size=12))
def test_nothing_but_an_input_error_ever_escapes(text: str) -> None:
    try:
        parse_budget(text)
    except InputError as error:
        said = str(error).replace(repr(text.strip()), "")
        assert "\n" not in "".join(said.replace(repr(part.strip()), "") for part in text.split(","))


def test_all_bounds_must_hold() -> None:
    limits = Limits(flops=100, latency_ms=10, memory_bytes=5)
    assert limits.allow(cost(100, 10, 3, 2))
    assert not limits.allow(cost(101, 10, 3, 2))
    assert not limits.allow(cost(100, 10.01, 3, 2))
    assert not limits.allow(cost(100, 10, 4, 2))


def test_what_is_used_is_the_scarcest_and_never_memory() -> None:
    limits = Limits(flops=100, latency_ms=10, memory_bytes=5)
    assert limits.used(cost(50, 9, 5)) == 0.9
    assert limits.used(cost(95, 9, 5)) == 0.95


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500MB", 5 * 10**8), ("1.5 GiB", 3 * 2**29), ("100b", 100), ("2kib", 2048), (".5gb", 5 * 10**8)],
)
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "0MB", "500", "-1MB", "1TB", "MB", "1 mbit"])
def test_no_amounts_of_memory(text: str) -> None:
    with pytest.raises(InputError, match="500MB"):
        parse_bytes(text)
