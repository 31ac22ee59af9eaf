"""What studies say that were made before some knobs came."""

from __future__ import annotations

import pytest
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import create_trial

from search_spaces import SearchSpace
from search_spaces.earlier import PLAIN_OF_LATER, are_as_before, completed
from tests.search_spaces import test_transformer_space, test_unet_space

SPACES = test_unet_space.SPACE, test_transformer_space.SPACE


@pytest.mark.parametrize("space", SPACES)
def test_later_knobs_do_nothing_to_what_was_said_before(space: SearchSpace) -> None:
    names = [knob.name for knob in space.knobs]
    for recipe in space.recipes:
        before = {name: value for name, value in recipe.values.items() if name not in PLAIN_OF_LATER}
        values = completed(before, names)
        space.check(values)
        assert values == {**space.recipes[0].values, **before}


def test_a_trial_from_before_is_the_policy_it_was() -> None:
    space = test_unet_space.SPACE
    wanted = test_unet_space.values(depth=3, interval=2)
    knobs = [knob for knob in space.knobs if knob.name not in PLAIN_OF_LATER]
    ends: dict[str, BaseDistribution] = {knob.name: IntDistribution(knob.low, knob.high) for knob in knobs}
    trial = create_trial(params={name: wanted[name] for name in ends}, distributions=ends, value=0.0)
    assert space.from_trial(trial) == space.policy(wanted, 20)


def test_what_was_never_said_stays_missing() -> None:
    assert completed({"interval": 2}, ["depth", "interval", "cool_down"]) == {"interval": 2}
    assert completed({"cool_down": 2}, ["cool_down"]) == {"cool_down": 2}


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        (["depth 0..4"], ["depth 0..4", "cool_down 0..3", "late_start 8..16"], True),
        (["depth 0..4"], ["cool_down 0..0", "depth 0..4"], True),
        (["depth 0..4"], ["depth 0..4", "cool_down 1..3"], False),
        (["depth 0..4"], ["depth 0..3", "cool_down 0..3"], False),
        (["depth 0..4"], ["depth 0..4", "blocks 0..3"], False),
        (["depth 0..4", "cool_down 0..3"], ["depth 0..4", "cool_down 0..2"], False),
        (["depth 0..4", "cool_down 0..3"], ["depth 0..4"], False),
        (["depth 0..4", "steps 1..8"], ["depth 0..4", "middle 0..10", "steps 1..8"], True),
    ],
)
def test_spaces_mix_where_only_what_came_later_differs(before: list[str], now: list[str], same: bool) -> None:
    assert are_as_before(before, now) is same
