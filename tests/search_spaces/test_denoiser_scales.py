"""Of many sizes a search takes few, and says which."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from autotune.plan import accepted_scales
from search_spaces.denoiser import taken_scales


@given(side=st.integers(4, 200), multiple=st.sampled_from([1, 2, 4, 8]))
def test_each_scale_means_one_of_at_most_eight(side: int, multiple: int) -> None:
    scales = accepted_scales(side * multiple, side * multiple, multiple)
    taken = taken_scales(scales)
    assert len(taken) == len(scales) and len(set(taken)) <= 8 and set(taken) <= set(scales)
    assert taken[-1] == 1 and list(taken) == sorted(taken)
    # Half a gap between eighths, and half of one between the sides there are.
    farthest = Fraction(1, 16) + Fraction(1, 2 * side)
    assert all(abs(means - scale) <= farthest for means, scale in zip(taken, scales, strict=True))
    assert all(taken[scales.index(each)] == each for each in set(taken)), "what is taken means itself"


def test_few_scales_are_all_taken() -> None:
    scales = accepted_scales(16, 16, 2)
    assert taken_scales(scales) == scales and len(scales) == 7
