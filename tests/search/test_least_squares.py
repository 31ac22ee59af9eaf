from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from autotune.core.errors import InputError
from autotune.search.least_squares import NormalEquations, fit_forecast


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


_SCHEDULES = st.sets(st.integers(2, 11), max_size=6).map(lambda steps: tuple(sorted({0, 1, *steps})))


@given(compute=_SCHEDULES, seed=st.integers(0, 1000), units=st.integers(1, 3))
def test_what_changes_linearly_is_forecast_exactly(compute: tuple[int, ...], seed: int, units: int) -> None:
    """The law of the fit: Lagrange's line, of order 1, found from outputs alone."""
    lines = [(_random(seed + unit, 2, 3, 4), _random(seed + 50 + unit, 2, 3, 4)) for unit in range(units)]
    outputs = [[start + step / 12 * slope for step in range(12)] for start, slope in lines]
    fitted = iter(fit_forecast(outputs, compute, ridge=0))
    for step in range(12):
        if step in compute:
            continue
        newest, before = [each for each in compute if each < step][:-3:-1]
        weights = next(fitted)
        line = [(step - before) / (newest - before), -(step - newest) / (newest - before)]
        assert weights == pytest.approx(line, abs=1e-6)
        for unit in outputs:
            forecast = weights[0] * unit[newest] + weights[1] * unit[before]
            assert torch.allclose(forecast, unit[step], atol=1e-6, rtol=0)


@given(seed=st.integers(0, 1000), terms=st.integers(1, 3))
def test_no_other_weights_err_less(seed: int, terms: int) -> None:
    equations = NormalEquations(terms)
    equations.add([_random(seed, 4, 9)], [[_random(seed + 1 + term, 4, 9)] for term in range(terms)])
    best = equations.weights(ridge=0)
    least = equations.error(best)
    for direction in (*np.eye(terms), *-np.eye(terms)):
        assert equations.error(best + 1e-3 * direction) > least


def test_the_error_is_the_mean_of_rows_relative_errors() -> None:
    target, earlier = _random(1, 5, 7), _random(2, 5, 7)
    equations = NormalEquations(1)
    equations.add([target[:2]], [[earlier[:2]]])
    equations.add([target[2:]], [[earlier[2:]]])
    expected = ((target - 0.7 * earlier).square().sum(1) / target.square().sum(1)).mean()
    assert equations.error([0.7]) == pytest.approx(float(expected))


def test_tensors_of_one_output_count_together() -> None:
    target, earlier = _random(1, 5, 8), _random(2, 5, 8)
    whole, parts = NormalEquations(1), NormalEquations(1)
    whole.add([target], [[earlier]])
    parts.add([target[:, :3], target[:, 3:]], [[earlier[:, :3], earlier[:, 3:]]])
    assert parts.weights() == pytest.approx(whole.weights())


def test_what_outputs_do_not_decide_stays_reuse() -> None:
    same = _random(3, 2, 6)
    for ridge in (0, 1e-6, 1):
        equations = NormalEquations(3)
        equations.add([same], [[same], [same], [same]])
        assert equations.weights(ridge) == pytest.approx([1, 0, 0], abs=1e-6)
    equations = NormalEquations(2)
    equations.add([_random(4, 2, 6)], [[same], [_random(5, 2, 6)]])
    assert equations.weights(ridge=1e9) == pytest.approx([1, 0], abs=1e-6)


def test_outputs_of_zeros_say_nothing() -> None:
    equations = NormalEquations(1)
    equations.add([torch.zeros(2, 3)], [[torch.ones(2, 3)]])
    assert equations.samples == 0 and equations.weights() == pytest.approx([1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"terms": 0}, "terms is 0"),
        ({"terms": 4}, "1 to 3 weights"),
        ({"ridge": -1.0}, "ridge is -1"),
        ({"ridge": float("nan")}, "ridge is nan"),
        ({"outputs": []}, "at least one unit"),
    ],
)
def test_what_no_fit_can_use_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_forecast(**({"outputs": [[torch.ones(1, 1)] * 3], "compute_steps": (0,)} | arguments))
