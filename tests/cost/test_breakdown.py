"""The parts of a price sum up to the price, as integers."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import HeunDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.cost import Pricer
from autotune.cost.breakdown import OUTSIDE, Breakdown, Latency, break_down
from autotune.plan import DenoiserCall
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from search_spaces import space_for
from tests.support.builders import FAMILIES
from tests.support.profiles import ALWAYS_MS, CORRECTIONS, DECODER_MS, TEXT_ENCODER_MS, synthetic_profile
from tests.support.tiny import tiny_sd

UNET = tiny_sd()
PRICER = Pricer(UNET)
SPACE = space_for(UNET)


def broken_down(pricer: Pricer, policy: Policy, batch: int = 1, latency: Latency | None = None) -> Breakdown:
    full = pricer.plan(Policy(steps=pricer.full_steps))
    return break_down(pricer.plan(policy), full, pricer.table, itemsize=4, batch_size=batch, latency=latency)


def check_sums(pricer: Pricer, policy: Policy, batch: int) -> None:
    found, cost, full = broken_down(pricer, policy, batch), pricer.price(policy, batch), pricer.full_cost(batch)
    assert sum(call.flops for call in found.steps) == cost.flops
    assert sum(call.macs_conv_linear for call in found.steps) == cost.macs_conv_linear
    assert max(call.kept_bytes for call in found.steps) == cost.cache_bytes
    for groups in (found.groups, found.parts):
        assert sum(group.flops for group in groups) == cost.flops
        assert sum(group.full_flops for group in groups) == full.flops
        assert len({group.name for group in groups}) == len(groups)
    units = len(pricer.structure.units)
    assert {call.computed + call.taken + call.not_needed for call in found.steps} == {units}
    for call in found.steps:
        assert call.flops == pytest.approx(call.relative * found.full_call_flops)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 3))
def test_sampled_policies_sum_up(seed: int, batch: int) -> None:
    check_sums(PRICER, SPACE.sample(seed, steps=8), batch)


@pytest.mark.parametrize("mode", [("reuse", None), ("residual", None), ("forecast", 2)])
@pytest.mark.parametrize("name", ["pixart-alpha", "sd3", "flux", "flux-dev", "wan"])
def test_transformers_sum_up(name: str, mode: tuple[Any, int | None]) -> None:
    family = FAMILIES[name]
    pricer = Pricer(family.make(), *family.size, frames=family.frames)
    blocks = next(unit.name for unit in pricer.structure.units if unit.kind == "block").rpartition(".")[0]
    policy = Policy(
        steps=9,
        resolution=(ResolutionStage(scale=0.5, until_step=3),),
        guidance=Guidance(start_step=1, stop_step=6),
        cache=(CacheRule(units=(f"{blocks}.1-2",), mode=mode[0], order=mode[1], compute_steps=(0, 1, 4, 7)),),
    )
    check_sums(pricer, policy, batch=2)


def test_the_full_run_is_its_own_measure() -> None:
    found = broken_down(PRICER, Policy(steps=PRICER.full_steps))
    for call in found.steps:
        assert (call.relative, call.taken, call.not_needed, call.kept_bytes) == (1, 0, 0, 0)
        assert call.flops == found.full_call_flops
        assert call.latency_ms is None
    for group in (*found.groups, *found.parts):
        assert group.flops == group.full_flops > 0


def test_groups_are_kinds_and_parts_are_blocks() -> None:
    found = broken_down(PRICER, Policy(steps=4))
    names = {group.name for group in found.groups}
    assert {"resnet", "self-attention", "cross-attention", "feed-forward", "block projections", OUTSIDE} <= names
    assert [group.full_flops for group in found.groups] == sorted(
        (group.full_flops for group in found.groups), reverse=True
    )
    assert [group.name for group in found.parts] == [
        "conv_in",
        *(f"down_blocks.{position}" for position in range(3)),
        "mid_block",
        *(f"up_blocks.{position}" for position in range(3)),
        "conv_out",
        OUTSIDE,
    ]
    table = PRICER.table(PRICER.height, PRICER.width)
    rows = 2 * PRICER.full_steps
    convolutions = [table.units[unit].flops * rows for unit in PRICER.structure.of_kind("convolution")]
    by_name = {group.name: group for group in (*found.groups, *found.parts)}
    assert by_name["convolution"].full_flops == sum(convolutions)
    assert [by_name[name].full_flops for name in ("conv_in", "conv_out")] == convolutions
    assert by_name[OUTSIDE].full_flops == table.always.flops * rows


def test_what_a_cache_leaves_to_do() -> None:
    policy = Policy(
        steps=5,
        guidance=Guidance(stop_step=3),
        cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 2)),),
    )
    calls = broken_down(PRICER, policy, batch=2).steps
    units = len(PRICER.structure.units)
    assert [call.taken for call in calls] == [0, 1, 0, 1, 1]
    assert [call.computed == units for call in calls] == [True, False, True, False, False]
    assert [call.branches for call in calls] == [2, 2, 2, 1, 1]
    assert calls[3].flops * 2 == calls[1].flops
    last = PRICER.structure.index_of["up_blocks.1"]
    size = 2 * 2 * 4 * PRICER.table(PRICER.height, PRICER.width).elements[last]
    assert [call.kept_bytes for call in calls] == [size] * 5


def test_calls_of_a_second_order_solver() -> None:
    pricer = Pricer(tiny_sd(scheduler=HeunDiscreteScheduler()))
    check_sums(pricer, Policy(steps=4), batch=1)
    calls = broken_down(pricer, Policy(steps=4)).steps
    assert [call.index for call in calls] == list(range(7))
    assert [call.step for call in calls] == [0, 0, 1, 1, 2, 2, 3]


def test_each_call_has_the_time_of_its_step() -> None:
    asked: list[DenoiserCall] = []

    class Fake:
        def call_ms(self, step: DenoiserCall) -> float:
            asked.append(step)
            return 10.0 + step.index

    policy = Policy(steps=4, resolution=(ResolutionStage(scale=0.5, until_step=2),))
    found = broken_down(PRICER, policy, latency=Fake())
    assert tuple(asked) == PRICER.plan(policy).steps
    assert [call.latency_ms for call in found.steps] == [10, 11, 12, 13]


def test_times_are_those_of_the_prediction() -> None:
    pricer = PRICER.on(synthetic_profile(PRICER, batches=(2,)))
    policy = Policy(steps=6, resolution=(ResolutionStage(scale=0.5, until_step=2),), guidance=Guidance(stop_step=4))
    found = broken_down(pricer, policy, batch=2, latency=pricer.latency(2))
    around = TEXT_ENCODER_MS + DECODER_MS + CORRECTIONS.call_ms + 6 * CORRECTIONS.step_ms + CORRECTIONS.handoff_ms
    times = [call.latency_ms or 0 for call in found.steps]
    assert sum(times) + around == pytest.approx(pricer.price(policy, 2).latency_ms)
    assert min(times) > ALWAYS_MS
