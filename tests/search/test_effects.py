"""What settings change, learned from few candidates."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.search.effects import Effects, Observation

SETTINGS = ("cache", "guidance", "small", "solver")


def observe(excess: Mapping[Any, float], noise: float = 0.01) -> Effects:
    """Of tuples of settings."""
    return Effects([Observation(frozenset(settings), value, noise) for settings, value in excess.items()])


def test_effects_of_single_settings_add_up() -> None:
    effects = observe({("solver",): -0.1, ("guidance",): -0.2, ("cache",): 0.1})
    mean, deviation = effects.predict(("solver", "guidance"))
    assert mean == pytest.approx(-0.3, abs=0.02)
    assert deviation > effects.predict(("solver",))[1]


def test_a_pair_that_was_tried_corrects_their_sum() -> None:
    singles = {("solver",): -0.1, ("guidance",): -0.2, ("cache",): 0.1}
    effects = observe(singles | {("solver", "guidance"): -0.1})
    mean, deviation = effects.predict(("solver", "guidance"))
    assert mean == pytest.approx(-0.1, abs=0.03) and deviation < 0.02
    # What follows from the pair is believed of three that contain it, too.
    assert effects.predict(("solver", "guidance", "cache"))[0] > -0.1


def test_most_is_expected_of_what_gains_most_and_nothing_of_what_is_known_to_lose() -> None:
    effects = observe({("solver",): -0.1, ("guidance",): -0.2, ("small",): -0.02, ("cache",): 0.3})
    pairs = list(combinations(SETTINGS, 2))
    assert max(pairs, key=effects.improvement) == ("guidance", "solver")
    assert effects.improvement(("cache",)) < 1e-3 < effects.improvement(("guidance", "solver"))


def test_one_candidate_that_loses_everything_does_not_drown_the_others() -> None:
    losses = {("solver",): -0.1, ("guidance",): -0.2, ("small",): 0.1}
    for settings in (("solver", "guidance"), ("solver",)):
        calm, wild = observe(losses | {("cache",): 0.3}), observe(losses | {("cache",): 60.0})
        assert wild.predict(settings)[0] == pytest.approx(calm.predict(settings)[0], abs=0.05)


@given(
    st.dictionaries(
        st.lists(st.sampled_from(SETTINGS), min_size=1, max_size=3, unique=True).map(lambda each: tuple(sorted(each))),
        st.floats(-1, 5),
        min_size=1,
        max_size=12,
    ),
    st.floats(0.01, 0.5),
)
def test_more_is_known_of_what_was_tried_than_before(excess: dict[tuple[str, ...], float], noise: float) -> None:
    effects = observe(excess, noise)
    for settings in excess:
        mean, deviation = effects.predict(settings)
        assert deviation <= noise + 1e-9
        assert effects.improvement(settings) >= 0
        assert abs(mean) <= 2 * max(map(abs, excess.values())) + 1e-9
