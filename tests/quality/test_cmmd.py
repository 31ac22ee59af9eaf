from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.quality.cmmd import cmmd, cmmd_unbiased, unit_rows
from tests.quality.samples import SEEDS, features, normal, rotation


def written_out(x: np.ndarray, y: np.ndarray, *, biased: bool) -> float:
    """Pair by pair, in numpy."""
    x, y = (s / np.linalg.norm(s, axis=1, keepdims=True) for s in (x, y))

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-np.square(a[:, None] - b[None]).sum(-1) / (2 * 10**2))

    def within(s: np.ndarray) -> float:
        pairs = k(s, s) if biased else k(s, s)[~np.eye(len(s), dtype=bool)]
        return float(pairs.mean())

    return 1000 * (within(x) + within(y) - 2 * float(k(x, y).mean()))


@pytest.mark.parametrize("d", [2, 16, 200])
@pytest.mark.parametrize("m", [50, 35])
def test_it_is_the_formula(d: int, m: int) -> None:
    x, y = features(1, n=50, d=d), features(2, n=m, d=d)
    assert cmmd(x, y) == pytest.approx(written_out(x.numpy(), y.numpy(), biased=True), rel=1e-6)
    assert cmmd_unbiased(x, y) == pytest.approx(written_out(x.numpy(), y.numpy(), biased=False), rel=1e-6)


def test_the_unbiased_form_is_zero_on_average_for_equal_distributions_and_the_biased_is_not() -> None:
    pairs = [(normal(2 * i, 8, 16), normal(2 * i + 1, 40, 16)) for i in range(200)]
    unbiased = torch.tensor([cmmd_unbiased(x, y) for x, y in pairs])
    biased = torch.tensor([cmmd(x, y) for x, y in pairs])
    assert abs(float(unbiased.mean())) < 4 * float(unbiased.std()) / 200**0.5
    assert float(biased.mean()) == pytest.approx(10 * (1 / 8 + 1 / 40), rel=0.05)


@settings(max_examples=30, deadline=None)
@given(SEEDS, SEEDS, st.integers(1, 12), st.floats(0.1, 10))
def test_laws_of_the_biased_form(one: int, two: int, d: int, length: float) -> None:
    x, y, q = features(one, n=20, d=d), features(two, n=30, d=d), rotation(one, d)
    value = cmmd(x, y)
    assert value > -1e-9
    assert cmmd(x, x) == pytest.approx(0, abs=1e-9)
    assert cmmd(y, x) == pytest.approx(value, abs=1e-9)
    assert cmmd(x @ q, y @ q) == pytest.approx(value, abs=1e-9)
    assert cmmd(length * x, y) == pytest.approx(value, abs=1e-9)


def test_it_is_nearly_ten_times_the_squared_distance_of_the_means() -> None:
    x, y = features(1, n=200, d=32), features(2, n=300, d=32)
    apart = float((unit_rows(x).mean(0) - unit_rows(y).mean(0)).square().sum())
    assert cmmd(x, y) == pytest.approx(10 * apart, rel=0.03)


def test_constant_features_are_apart_by_their_angle() -> None:
    x, y = torch.tensor([[1.0, 0.0]]).expand(5, 2), torch.tensor([[0.0, 2.0]]).expand(7, 2)
    expected = 2000 * (1 - np.exp(-2 / 200))
    assert cmmd(x, y) == pytest.approx(expected)
    assert cmmd_unbiased(x, y) == pytest.approx(expected)
    assert cmmd(x, x) == cmmd_unbiased(x, x) == 0


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="5 of 5 features are zero"):
        cmmd(torch.zeros(5, 3), torch.ones(5, 3))
    with pytest.raises(ValueError, match="N >= 2"):
        cmmd(torch.ones(1, 3), torch.ones(4, 3))
    with pytest.raises(ValueError, match="not finite"):
        cmmd(torch.full((5, 3), float("inf")), torch.ones(5, 3))
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        cmmd(torch.ones(5, 3), torch.ones(5, 4))
