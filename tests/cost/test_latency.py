"""Predicted milliseconds are the profile's, added up over the plan."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.cost import Pricer
from autotune.cost.latency import LatencyModel
from autotune.cost.profile import ProfileError
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from search_spaces import space_for
from tests.support.builders import FAMILIES
from tests.support.profiles import ALWAYS_MS, CORRECTIONS, DECODER_MS, GFLOPS_PER_MS, TEXT_ENCODER_MS, synthetic_profile
from tests.support.tiny import tiny_sd


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_sd()


@pytest.fixture(scope="module")
def plain(pipe: Any) -> Pricer:
    return Pricer(pipe)


@pytest.fixture(scope="module")
def pricer(plain: Pricer) -> Pricer:
    return plain.on(synthetic_profile(plain, (1, 4)))


def expected(pricer: Pricer, policy: Policy, batch: int = 1) -> float:
    """By hand, from FLOPs."""
    plan = pricer.plan(policy)
    units = 0
    for step in plan.steps:
        table = pricer.table(step.height, step.width)
        units += batch * step.branches * sum(table.units[unit].flops for unit in step.pattern.computed)
    handoffs = sum(step.handoff is not None for step in plan.steps)
    return (
        TEXT_ENCODER_MS
        + DECODER_MS
        + CORRECTIONS.call_ms
        + len(plan.steps) * (CORRECTIONS.step_ms + ALWAYS_MS)
        + handoffs * CORRECTIONS.handoff_ms
        + units / (GFLOPS_PER_MS * 1e9)
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("batch", [1, 4])
def test_a_prediction_is_the_sum_over_the_plan(pipe: Any, pricer: Pricer, seed: int, batch: int) -> None:
    policy = space_for(pipe).sample(seed, steps=10)
    assert pricer.price(policy, batch).latency_ms == pytest.approx(expected(pricer, policy, batch), rel=1e-9)


def test_without_a_target_there_are_no_milliseconds(plain: Pricer) -> None:
    assert plain.price(Policy(steps=3)).latency_ms is None
    with pytest.raises(ProfileError, match="give a target"):
        plain.latency()


def test_two_branches_in_two_calls_take_twice_one() -> None:
    family = FAMILIES["wan"]
    pipe = family.make()
    plain = Pricer(pipe, *family.size, frames=family.frames, guided=True, text_tokens=family.text_tokens)
    pricer = plain.on(synthetic_profile(plain))
    guided = pricer.price(Policy(steps=4)).latency_ms
    alone = pricer.price(Policy(steps=4, guidance=Guidance(stop_step=1))).latency_ms
    assert guided is not None and alone is not None
    around = TEXT_ENCODER_MS + DECODER_MS + CORRECTIONS.call_ms + 4 * CORRECTIONS.step_ms
    assert guided - around == pytest.approx(8 / 5 * (alone - around))


def test_hooks_are_paid_for_where_a_unit_is_ever_skipped(plain: Pricer) -> None:
    profile = synthetic_profile(plain)
    times = profile.batches[0].model_copy(update={"corrections": CORRECTIONS.model_copy(update={"hook_ms": 0.1})})
    model = LatencyModel(plain.structure, times, separate=False)
    cached = plain.plan(Policy(steps=4, cache=(CacheRule(units=("conv_in",), compute_steps=(0, 2)),)))
    assert model.parts(cached).hooks == 4
    assert model.parts(plain.plan(Policy(steps=4))).hooks == 0


def test_a_block_is_paid_for_where_one_of_its_units_computes(plain: Pricer) -> None:
    profile = synthetic_profile(plain)
    blocks = (1.0,) * len(plain.structure.blocks)
    calls = tuple(call.model_copy(update={"blocks_ms": blocks}) for call in profile.batches[0].calls)
    times = profile.batches[0].model_copy(update={"calls": calls})
    model = LatencyModel(plain.structure, times, separate=False)
    bare = LatencyModel(plain.structure, profile.batches[0], separate=False)
    names = [block.name for block in plain.structure.blocks]
    plan = plain.plan(Policy(steps=2, cache=(CacheRule(units=(names[-1],), compute_steps=(0,)),)))
    first, second = (model.call_ms(step) - bare.call_ms(step) for step in plan.steps)
    # Everything feeds only the last block's output, which is reused.
    assert (first, second) == pytest.approx((len(names), 0))


def test_latents_without_times_are_refused_by_size(pipe: Any, plain: Pricer) -> None:
    profile = synthetic_profile(plain)
    full = tuple(call for call in profile.batches[0].calls if call.height == plain.height)
    few = profile.model_copy(update={"batches": (profile.batches[0].model_copy(update={"calls": full}),)})
    policy = Policy(steps=4, resolution=(ResolutionStage(scale=0.5, until_step=2),))
    half = plain.height // 2
    with pytest.raises(ProfileError, match=f"latents of {half}x{half} with 2 guidance branches; it has"):
        plain.on(few).price(policy)


def test_times_of_other_units_are_refused(plain: Pricer) -> None:
    other = Pricer(FAMILIES["pixart-alpha"].make(), *FAMILIES["pixart-alpha"].size)
    times = synthetic_profile(other).batches[0]
    with pytest.raises(ProfileError, match="profile it again with this release"):
        LatencyModel(plain.structure, times, separate=False)
