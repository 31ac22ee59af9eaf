"""Levers are off in about half of all draws; what is drawn, and what is kept of it, say the same."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.policy import Policy
from search_spaces import Knob, Lever
from search_spaces.levers import asked, drawn, is_on
from tests.conformance.tuner import FROM_FOLDERS, space_of

KNOBS = (
    Knob("depth", 0, 3, ""),
    Knob("interval", 1, 6, ""),
    Knob("order", 0, 2, ""),
    Knob("warm_up", 0, 5, ""),
    Knob("layers", 1, 6, ""),
    Knob("blocks", 0, 4, ""),
    Knob("late", 0, 6, ""),
    Knob("skew", -2, 2, ""),
    Knob("free", 0, 9, ""),
)
PLAIN = {"depth": 0, "interval": 1, "order": 0, "warm_up": 0, "layers": 1, "blocks": 0, "late": 0, "skew": 0, "free": 4}
REUSE = Lever("reuse", ("depth", "interval"), essential=("depth", "interval"))
FORECASTING = Lever("forecasting", ("order",), essential=("order",), part_of="reuse")
GATHERED = Lever("gathered", ("warm_up",), gathers=True)
MODIFYING = Lever("modifying", ("late",), essential=("late",), part_of="gathered", modifies=True)
LAYERS = Lever("of_layers", ("layers",), essential=("layers",), part_of="gathered")
BLOCKS = Lever("of_blocks", ("blocks",), essential=("blocks",), part_of="gathered")
SKEWED = Lever("skewed", ("skew",))
LEVERS = (REUSE, FORECASTING, GATHERED, MODIFYING, LAYERS, BLOCKS, SKEWED)


def ranges(knob: Knob) -> st.SearchStrategy[Knob]:
    return st.tuples(st.integers(knob.low, knob.high), st.integers(knob.low, knob.high)).map(
        lambda ends: knob.within(min(ends), max(ends))
    )


NARROWED = st.tuples(*(ranges(knob) for knob in KNOBS))


@settings(max_examples=300, deadline=None)
@given(knobs=NARROWED | st.just(KNOBS), seed=st.integers(0, 10**6), conditional=st.booleans())
def test_what_is_kept_tells_what_was_asked(knobs: tuple[Knob, ...], seed: int, conditional: bool) -> None:
    draw, said = random.Random(seed), {}

    def ask(name: str, low: int, high: int) -> int:
        said[name] = draw.randint(low, high), low, high
        return said[name][0]

    values = drawn(LEVERS, knobs, PLAIN, ask, conditional=conditional)
    assert values.keys() == PLAIN.keys()
    for knob in knobs:
        assert knob.low <= values[knob.name] <= knob.high
    again = drawn(LEVERS, knobs, PLAIN, lambda name, *_: asked(LEVERS, knobs, PLAIN, values)[name][0])
    assert again == values
    shown = asked(LEVERS, knobs, PLAIN, values, conditional=conditional)
    bounds = {name: ends for name, (_, *ends) in shown.items()}
    if not conditional:
        assert shown.keys() == said.keys()
    # A lever that was drawn but does nothing is off, and has no knobs.
    assert {name: ends for name, (_, *ends) in said.items() if name in bounds} == bounds


@pytest.mark.parametrize("lever", LEVERS, ids=lambda lever: str(lever.name))
def test_a_lever_is_off_half_of_the_time(lever: Lever) -> None:
    draw = random.Random(0)
    values = [drawn(LEVERS, KNOBS, PLAIN, lambda _, low, high: draw.randint(low, high)) for _ in range(2000)]
    holding = [each for each in values if lever.part_of is None or is_on(_named(lever.part_of), LEVERS, each, PLAIN)]
    share = sum(is_on(lever, LEVERS, each, PLAIN) for each in holding) / len(holding)
    # Of two parts one is on where any is; of five values of a skew one does nothing.
    assert 0.35 < share < 0.7


def _named(name: str) -> Lever:
    return next(lever for lever in LEVERS if lever.name == name)


def test_off_with_what_it_belongs_to() -> None:
    answers = {"reuse": 0, "gathered": 0, "skewed": 0, "free": 7}
    # Nothing else is asked for.
    values = drawn(LEVERS, KNOBS, PLAIN, lambda name, *_: answers[name])
    assert values == PLAIN | {"free": 7}


def test_what_modifies_parts_is_none_and_off_without_them() -> None:
    assert not is_on(GATHERED, LEVERS, {**PLAIN, "late": 3}, PLAIN)
    answers = {"reuse": 0, "gathered": 1, "modifying": 1, "of_layers": 0, "of_blocks": 0, "skewed": 0}
    values = drawn(LEVERS, KNOBS, PLAIN, lambda name, low, high: answers.get(name, high))
    assert values == PLAIN | {"free": 9}
    answers["of_layers"] = 1
    values = drawn(LEVERS, KNOBS, PLAIN, lambda name, low, high: answers.get(name, high))
    assert values == PLAIN | {"free": 9, "warm_up": 5, "layers": 6, "late": 6}


def test_ranges_that_leave_no_choice_have_no_switch() -> None:
    fixed = {"interval": (2, 3), "depth": (1, 1), "layers": (1, 1), "blocks": (0, 0)}
    knobs = tuple(knob.within(*fixed[knob.name]) if knob.name in fixed else knob for knob in KNOBS)
    names: list[str] = []

    def ask(name: str, low: int, high: int) -> int:
        names.append(name)
        return high

    values = drawn(LEVERS, knobs, PLAIN, ask)
    assert {"reuse", "gathered", "of_layers", "of_blocks"}.isdisjoint(names)
    assert (values["interval"], values["depth"]) == (3, 1) and (values["layers"], values["blocks"]) == (1, 0)


def levers_pulled(policy: Policy) -> int:
    return (
        bool(policy.resolution)
        + len(policy.cache)
        + any(rule.mode == "forecast" for rule in policy.cache)
        + (policy.guidance is not None)
        + (policy.guidance is not None and policy.guidance.after != "nothing")
        + (policy.scheduler is not None)
        + (policy.timesteps != "default" or policy.sigmas is not None)
    )


LEFT_ALONE: dict[str, Callable[[Policy], bool]] = {
    "reuse": lambda policy: not policy.cache,
    "low resolution": lambda policy: not policy.resolution,
    "guidance": lambda policy: policy.guidance is None,
    "solver": lambda policy: policy.scheduler is None,
}


@pytest.mark.parametrize("name", FROM_FOLDERS)
def test_draws_of_all_families_are_simple(name: str) -> None:
    space = space_of(name, 20)
    policies = [space.sample(seed) for seed in range(1000)]
    offered = {knob.name: knob.low < knob.high for knob in space.knobs}
    possible = {"guidance": offered["guidance_stop"], "solver": offered["solver"], "low resolution": offered["scale"]}
    for lever, alone in LEFT_ALONE.items():
        share = sum(map(alone, policies)) / len(policies)
        assert 0.35 <= share <= 0.65 if possible.get(lever, True) else share == 1, lever
    assert sum(levers_pulled(policy) <= 2 for policy in policies) >= 400
