from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from studies.forecasts import difference, ratio
from studies.latents import errors
from studies.search.recipes import evenly


@given(steps=st.integers(2, 50), data=st.data())
def test_computing_steps_are_as_even_as_can_be(steps: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, steps))
    found = evenly(steps, count)
    gaps = [after - before for before, after in zip(found, [*found[1:], steps], strict=True)]
    assert found[0] == 0 and len(found) == count and max(gaps) - min(gaps) <= 1 and min(gaps) >= 1


def test_errors_are_relative_to_the_exact_latents() -> None:
    exact = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    found = torch.tensor([[3.0, 4.0], [1.0, 2.0]])
    assert errors(found, exact).tolist() == [0.0, 4.0]
    assert errors(exact + torch.tensor([[5.0, 0.0]]), exact)[0] == pytest.approx(1)


def test_differences_are_paired() -> None:
    other = torch.arange(8.0)
    assert difference(other + 1, other) == (1.0, 1.0, 1.0)
    value, low, high = difference(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3))
    # Student's t of two degrees of freedom.
    assert (value, low, high) == pytest.approx((2.0, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def test_ratios_are_geometric_means() -> None:
    assert ratio(torch.tensor([2.0, 8.0]), torch.tensor([1.0, 1.0]))[0] == 4.0
