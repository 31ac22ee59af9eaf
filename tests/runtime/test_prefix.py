"""What two plans have in common, and pipeline calls that share it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autotune.core.errors import InputError
from autotune.cost import Pricer
from autotune.cost.breakdown import break_down
from autotune.evaluation.pictures import generate
from autotune.plan import compile_plan
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.runtime import applied
from autotune.runtime.apply import applied_sharing, session_of
from autotune.runtime.prefix.checkpoints import PrefixCache, Use
from autotune.runtime.prefix.keys import features_read, prefix_keys, same_noise_levels, shapes_read, shared_steps
from tests.support.tiny import tiny_sd

STEPS = 6
PROMPTS, SEEDS = ["a cat", "a dog"], [1, 2]
ROOMY = 2**30


@cache
def pipeline() -> Any:
    # One that draws noise in every step.
    return tiny_sd(scheduler=DDPMScheduler(clip_sample=False, steps_offset=1))


@cache
def pricer() -> Pricer:
    return Pricer(pipeline())


def reusing(*compute_steps: int, unit: str = "up_blocks.1", **fields: Any) -> Policy:
    return Policy(steps=STEPS, cache=(CacheRule(units=(unit,), compute_steps=compute_steps),), **fields)


def rated(*compute_steps: int, stop: int = STEPS) -> Policy:
    return Policy(version=3, steps=STEPS, guidance=Guidance(stop_step=stop, compute_steps=compute_steps))


def plainly(policy: Policy, **options: Any) -> Tensor:
    with applied(pipeline(), policy):
        return generate(pipeline(), PROMPTS, SEEDS, **options)


def sharing(
    policy: Policy, prefixes: PrefixCache, prompts: Any = PROMPTS, seeds: Any = SEEDS, **options: Any
) -> Tensor:
    with applied_sharing(pipeline(), policy, prefixes) as call:
        return generate(pipeline(), prompts, seeds, call=call, **options)


def skipped(prefixes: PrefixCache) -> list[int]:
    return [use.skipped for use in prefixes.take_uses()]


# Plans


def test_plans_share_what_comes_before_the_first_difference() -> None:
    plan = pricer().plan
    one = reusing(0, 2, 4)
    assert shared_steps(plan(one), plan(one)) == STEPS
    assert shared_steps(plan(one), plan(reusing(0, 2, 5))) == 4
    assert shared_steps(plan(one), plan(reusing(0, 2, 4, unit="mid_block"))) == 1
    assert shared_steps(plan(one), plan(reusing(0, 2, 4, guidance=Guidance(stop_step=3)))) == 3
    # One branch in both: with the last difference of the branches, and without guidance.
    assert shared_steps(plan(rated(0, 1)), plan(rated(0, 1, stop=2))) == 2
    assert shared_steps(plan(rated(0, 3)), plan(rated(0, 3, 4))) == 4
    # A hand-off is part of the step before it.
    stage = ResolutionStage(scale=0.5, until_step=4)
    later, matched = ResolutionStage(scale=0.5, until_step=5), stage.model_copy(update={"handoff": "noise_matched"})
    staged = plan(Policy(steps=STEPS, resolution=(stage,)))
    assert shared_steps(staged, plan(Policy(steps=STEPS, resolution=(later,)))) == 3
    assert shared_steps(staged, plan(Policy(steps=STEPS, resolution=(matched,)))) == 3


def test_a_hand_over_to_another_size_is_another_step() -> None:
    one, other = (
        (ResolutionStage(scale=0.25, until_step=2), ResolutionStage(scale=scale, until_step=4)) for scale in (0.5, 0.75)
    )
    plans = [
        compile_plan(Policy(steps=STEPS, resolution=stages), pricer().structure, 16, 16) for stages in (one, other)
    ]
    assert shared_steps(*plans) == 1


def test_residuals_of_other_ranges_are_other_steps() -> None:
    from tests.support.builders import FAMILIES

    pipe = FAMILIES["pixart-alpha"].make()
    plans = [
        Pricer(pipe, 32, 32).plan(
            Policy(steps=STEPS, cache=(CacheRule(units=(units,), mode="residual", compute_steps=(0, 2)),))
        )
        for units in ("transformer_blocks.1-2", "transformer_blocks.2")
    ]
    assert shared_steps(*plans) <= 1
    assert not features_read(plans[0], 1) & features_read(plans[1], 1)


def test_only_policies_with_the_same_noise_levels_share() -> None:
    one = reusing(0, 2)
    assert same_noise_levels(one, reusing(0, 4, guidance=Guidance(stop_step=3)))
    assert not same_noise_levels(one, Policy(steps=STEPS + 1))
    assert not same_noise_levels(one, reusing(0, 2, timesteps="trailing"))


def test_what_is_read_of_earlier_calls() -> None:
    plan = pricer().plan(reusing(0, 3))
    unit = plan.structure.index_of["up_blocks.1"]
    assert features_read(plan, 2) == {(unit, 0, None)}
    assert features_read(plan, 3) == frozenset() and shapes_read(plan, 3) == frozenset()
    assert shapes_read(plan, 4) == {u for u, action in enumerate(plan.steps[4].actions) if action.name == "NOT_NEEDED"}


_COMPUTING = st.sets(st.integers(1, STEPS - 1)).map(lambda steps: tuple(sorted({0, *steps})))
_RULES = st.builds(
    lambda units, mode, steps: CacheRule(
        units=units, mode=mode, order=1 if mode == "forecast" else None, compute_steps=steps
    ),
    st.sampled_from([("up_blocks.1",), ("mid_block",), ("**.attn2",)]),
    st.sampled_from(["reuse", "forecast"]),
    _COMPUTING,
)
_STAGES = st.builds(
    ResolutionStage,
    scale=st.just(0.5),
    until_step=st.integers(1, STEPS - 1),
    handoff=st.sampled_from(["renoise", "noise_matched"]),
)
_INTERVALS = st.tuples(st.integers(0, 2), st.integers(3, STEPS)).map(
    lambda at: Guidance(start_step=at[0], stop_step=at[1])
)
_RATES = st.sets(st.integers(1, STEPS - 1)).map(
    lambda steps: Guidance(stop_step=STEPS, compute_steps=tuple(sorted({0, *steps})))
)
_POLICIES = st.builds(
    lambda stage, guidance, rule: Policy(
        version=3,
        steps=STEPS,
        resolution=() if stage is None else (stage,),
        guidance=guidance,
        cache=() if rule is None else (rule,),
    ),
    st.none() | _STAGES,
    st.none() | _INTERVALS | _RATES,
    st.none() | _RULES,
)


@settings(deadline=None)
@given(_POLICIES, _POLICIES)
def test_keys_agree_as_long_as_the_plans_do(one: Policy, other: Policy) -> None:
    plans = pricer().plan(one), pricer().plan(other)
    shared = shared_steps(*plans)
    keys = [prefix_keys(plan, "same") for plan in plans]
    assert [a == b for a, b in zip(*keys, strict=True)] == [at <= shared for at in range(STEPS + 1)]
    assert not set(prefix_keys(plans[0], "another")) & set(keys[0])


@settings(deadline=None)
@given(_POLICIES, st.integers(0, STEPS))
def test_shared_calls_are_priced_as_the_calls_they_are(policy: Policy, calls: int) -> None:
    plan = pricer().plan(policy)
    parts = break_down(plan, plan, pricer().table, itemsize=4).steps
    assert pricer().first_calls_flops(policy, calls) == sum(part.flops for part in parts[:calls])
    assert pricer().first_calls_flops(policy, STEPS) == pricer().price(policy).flops


# Pipeline calls


@pytest.mark.parametrize("examples", [10, pytest.param(40, marks=pytest.mark.exhaustive)])
def test_pictures_are_the_same_with_it(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(st.lists(_POLICIES, min_size=2, max_size=3), st.sampled_from([ROOMY, 2 * 10**5]))
    def check(policies: list[Policy], max_bytes: int) -> None:
        prefixes = PrefixCache(max_bytes)
        for policy in policies:
            assert torch.equal(sharing(policy, prefixes), plainly(policy))
            assert prefixes.bytes <= max_bytes
        for use, policy in zip(prefixes.take_uses(), policies, strict=True):
            assert use.policy == policy.key and use.calls == STEPS and use.pictures == len(PROMPTS)

    check()


def test_as_much_is_skipped_as_is_shared_and_kept() -> None:
    prefixes = PrefixCache(ROOMY)
    one, other = reusing(0, 2, 4), reusing(0, 2, 4, guidance=Guidance(stop_step=5))
    sharing(one, prefixes)
    sharing(other, prefixes)
    # Kept are the states after 1, 2, 3 calls.
    assert prefixes.take_uses() == [Use(one.key, 2, STEPS, 0), Use(other.key, 2, STEPS, 3)]
    assert skipped(prefixes) == []


def test_a_checkpoint_without_what_is_read_later_is_passed_over() -> None:
    prefixes = PrefixCache(ROOMY)
    sharing(Policy(steps=STEPS), prefixes)
    # The full run kept nothing of call 0, which this one reads in calls 1 to 5.
    policy = reusing(0)
    assert torch.equal(sharing(policy, prefixes), plainly(policy))
    # This one computes anew where the other's calls end.
    later = reusing(0, 1, 2, 3)
    assert torch.equal(sharing(later, prefixes), plainly(later))
    assert skipped(prefixes) == [0, 0, 3]


def test_a_difference_of_the_branches_is_gone_on_from() -> None:
    prefixes = PrefixCache(ROOMY)
    one, other = rated(0, 1, 5), rated(0, 1, 4)
    for policy in (one, other):
        assert torch.equal(sharing(policy, prefixes), plainly(policy))
    assert skipped(prefixes) == [0, 3]
    # The full run has left none after its second call.
    prefixes = PrefixCache(ROOMY)
    for policy in (Policy(steps=STEPS), rated(0, 1)):
        assert torch.equal(sharing(policy, prefixes), plainly(policy))
    assert skipped(prefixes) == [0, 1]


def test_states_hold_what_any_of_the_calls_kept() -> None:
    prefixes = PrefixCache(ROOMY)
    for policy in (reusing(0, 1, 2, 5), reusing(0, 1, 2, 5, unit="mid_block"), reusing(0, 1, 2, 4)):
        assert torch.equal(sharing(policy, prefixes), plainly(policy))
    # After three calls the first has kept one unit's output, the second another's; the third takes the first's.
    assert skipped(prefixes) == [0, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": ["a cat", "a hat"]},
        {"seeds": [1, 3]},
        {"height": 48},
        {"guidance_scale": 3.0},
        {"prompts": ["a cat"], "seeds": [1]},
    ],
)
def test_other_calls_share_nothing(change: dict[str, Any]) -> None:
    prefixes = PrefixCache(ROOMY)
    sharing(reusing(0, 2), prefixes)
    sharing(reusing(0, 2), prefixes, **change)
    assert skipped(prefixes) == [0, 0]


@pytest.mark.parametrize("fields", [{"timesteps": "trailing"}, {"steps": STEPS + 1}])
def test_other_timesteps_share_nothing(fields: dict[str, Any]) -> None:
    prefixes = PrefixCache(ROOMY)
    sharing(Policy(steps=STEPS), prefixes)
    sharing(Policy(**({"steps": STEPS} | fields)), prefixes)
    assert skipped(prefixes) == [0, 0]


def _no_callback(*_: Any) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize(
    "option",
    [
        lambda: {"generator": None},
        lambda: {"latents": torch.zeros(1, 4, 8, 8)},
        lambda: {"callback_on_step_end": _no_callback},
    ],
    ids=["no generator", "given latents", "a callback"],
)
def test_calls_that_arguments_do_not_fix_are_made_plainly(option: Callable[[], dict[str, Any]]) -> None:
    prefixes = PrefixCache(ROOMY)
    for _ in range(2):
        arguments = {"generator": torch.Generator().manual_seed(0), "output_type": "pt"} | option()
        with applied_sharing(pipeline(), Policy(steps=STEPS), prefixes) as call:
            assert torch.isfinite(call("a cat", **arguments).images).all()
    assert prefixes.take_uses() == [] and len(prefixes) == 0


def test_generators_end_where_they_would_have() -> None:
    prefixes = PrefixCache(ROOMY)
    states = []
    for policy in (reusing(0, 2), reusing(0, 2, 5)):
        generator = torch.Generator().manual_seed(7)
        with applied_sharing(pipeline(), policy, prefixes) as call:
            call("a cat", generator=generator)
        states.append(generator.get_state())
    assert torch.equal(*states) and skipped(prefixes) == [0, 3]


# Memory


def test_memory_stays_within_the_bound() -> None:
    roomy = PrefixCache(ROOMY)
    policies = [reusing(*steps) for steps in ((0, 2), (0, 3), (0, 4), (0, 1, 5))]
    for policy in policies:
        sharing(policy, roomy)
    bound = roomy.bytes // 2
    tight = PrefixCache(bound)
    for policy in policies:
        assert torch.equal(sharing(policy, tight), plainly(policy))
        assert 0 < tight.bytes <= bound
    assert len(tight) < len(roomy)
    tight.clear()
    assert tight.bytes == 0 and len(tight) == 0


def test_a_checkpoint_larger_than_the_bound_is_not_kept() -> None:
    prefixes = PrefixCache(1)
    sharing(reusing(0, 2), prefixes)
    assert prefixes.bytes == 0 and len(prefixes) == 0


def test_every_call_of_a_round_keeps_its_share() -> None:
    """One after the other and longest unused first would leave none of the round's first calls."""
    one, other = reusing(0, 2, 4), reusing(0, 2, 4, guidance=Guidance(stop_step=5))
    calls = [{"seeds": [seed, seed + 1]} for seed in range(4)]
    roomy = PrefixCache(ROOMY)
    sharing(one, roomy)
    prefixes = PrefixCache(2 * roomy.bytes)
    for policy in (one, other):
        for call in calls:
            sharing(policy, prefixes, **call)
    assert all(count > 0 for count in skipped(prefixes)[len(calls) :])


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_no_memory_at_all_is_refused(max_bytes: int) -> None:
    with pytest.raises(InputError, match="positive"):
        PrefixCache(max_bytes)


# Faults


class Fault(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_call_that_fails_leaves_whole_checkpoints_only(at: int) -> None:
    pipe, prefixes, policy = pipeline(), PrefixCache(ROOMY), reusing(0, 1, 2, 3, 4, 5)
    calls = 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > at:
            raise Fault

    handle = pipe.unet.mid_block.register_forward_pre_hook(fail)
    try:
        with pytest.raises(Fault):
            sharing(policy, prefixes)
    finally:
        handle.remove()
    assert session_of(pipe) is None and prefixes.take_uses() == []
    assert torch.equal(sharing(policy, prefixes), plainly(policy))
    assert skipped(prefixes) == [min(at, 3)]
    # Nothing is left in the plain pipeline, and the next call is as any other.
    assert torch.equal(sharing(policy, PrefixCache(ROOMY)), plainly(policy))


def test_a_failing_scheduler_leaves_no_half_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, prefixes, policy = pipeline(), PrefixCache(ROOMY), Policy(steps=STEPS)
    draw, draws = torch.randn, 0

    def fail(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal draws
        draws += 1
        if draws > 6:
            raise Fault
        return draw(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "randn", fail)
        with pytest.raises(Fault):
            sharing(policy, prefixes)
    assert len(prefixes) == 2
    assert torch.equal(sharing(policy, prefixes), plainly(policy))
    assert vars(pipe.scheduler).keys() == vars(DDPMScheduler(clip_sample=False, steps_offset=1)).keys()


def test_another_pipeline_is_refused() -> None:
    prefixes = PrefixCache(ROOMY)
    sharing(Policy(steps=STEPS), prefixes)
    other = tiny_sd()
    with pytest.raises(InputError, match="one for each pipeline"), applied_sharing(other, Policy(steps=2), prefixes):
        pass
    assert session_of(other) is None
