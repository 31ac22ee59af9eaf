"""The exact run of a policy's intent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.evaluation.intent import exact_policy, is_exact, levels_in, plain_levels
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, SchedulerChoice
from autotune.runtime import full_policy
from tests.support.tiny import tiny_sd

FULL = Policy(steps=20)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_sd()


@st.composite
def guided(draw: st.DrawFn) -> Policy:
    steps = draw(st.integers(1, 40))
    start = draw(st.integers(0, steps - 1))
    return Policy(steps=steps, guidance=Guidance(start_step=start, stop_step=draw(st.integers(start + 1, steps))))


@given(guided(), st.integers(1, 50))
def test_it_is_the_full_run_but_for_guidance(policy: Policy, steps: int) -> None:
    full = Policy(steps=steps)
    exact = exact_policy(policy, full)
    assert is_exact(exact, full)
    if exact.guidance is None:
        return
    start, stop = exact.guidance.start_step, exact.guidance.stop_step
    assert 0 <= start < stop <= steps and (start, stop) != (0, steps)
    # Guidance that ends before the last step still does, where there is more than one.
    assert policy.guidance is not None
    assert stop < steps or steps == 1 or policy.guidance.stop_step == policy.steps or start == steps - 1
    # Another look changes nothing.
    assert exact_policy(exact, full).key == exact.key


@given(guided())
def test_of_as_many_steps_it_keeps_guidance(policy: Policy) -> None:
    exact = exact_policy(policy, Policy(steps=policy.steps))
    whole = policy.guidance == Guidance(start_step=0, stop_step=policy.steps)
    assert exact.guidance == (None if whole else policy.guidance)


def test_what_saves_leaves_no_trace() -> None:
    policy = Policy(
        steps=10,
        scheduler=SchedulerChoice(name="DPMSolverMultistepScheduler"),
        timesteps="trailing",
        resolution=(ResolutionStage(scale=0.5, until_step=3),),
        cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 4)),),
    )
    assert exact_policy(policy, FULL) is FULL
    held = policy.model_copy(update={"guidance": Guidance(stop_step=4, after="cross_attention")})
    assert exact_policy(held, FULL).guidance == Guidance(stop_step=8)
    rated = policy.model_copy(update={"guidance": Guidance(stop_step=4, compute_steps=(0, 2))})
    assert exact_policy(rated, FULL).guidance == Guidance(stop_step=8)
    assert not is_exact(policy, FULL) and not is_exact(held, FULL) and not is_exact(rated, FULL)


def test_guidance_as_a_rate_is_no_exact_run() -> None:
    rated = Policy(version=3, steps=20, guidance=Guidance(stop_step=20, compute_steps=(0, 2)))
    assert not is_exact(rated, FULL) and exact_policy(rated, FULL) is FULL


def test_guidance_shorter_than_a_step_gets_the_nearest_one() -> None:
    coarse = Policy(steps=4)
    short = Policy(steps=20, guidance=Guidance(start_step=9, stop_step=10))
    assert exact_policy(short, coarse).guidance == Guidance(start_step=2, stop_step=3)
    last = Policy(steps=20, guidance=Guidance(start_step=19, stop_step=20))
    assert exact_policy(last, coarse).guidance == Guidance(start_step=3, stop_step=4)


def test_guidance_is_switched_in_the_middle_between_two_steps() -> None:
    """After 1/12 and 7/12 of the trajectory: in the middle of the full run's second step and of its twelfth."""
    policy = Policy(steps=6, guidance=Guidance(start_step=1, stop_step=4))
    assert exact_policy(policy, FULL).guidance == Guidance(start_step=2, stop_step=12)
    finer = Policy(steps=40, guidance=Guidance(start_step=12, stop_step=30))
    assert exact_policy(finer, FULL).guidance == Guidance(start_step=6, stop_step=15)


def test_other_timesteps_are_guided_at_the_same_noise() -> None:
    """Half of the steps lie in the first fifth of the trajectory."""
    policy = Policy(steps=4, timesteps=(999, 820, 420, 200), guidance=Guidance(start_step=1, stop_step=3))
    assert exact_policy(policy, FULL).guidance == Guidance(start_step=2, stop_step=14)


def test_a_pipelines_scheduler_says_where_steps_lie(pipe: Any) -> None:
    full, levels = full_policy(pipe, 10), levels_in(pipe)
    assert list(levels(full)) == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    karras = Policy(
        steps=10,
        scheduler=SchedulerChoice(name="DPMSolverMultistepScheduler", config={"use_karras_sigmas": True}),
        guidance=Guidance(stop_step=5),
    )
    # Half of these steps lie in the noisier two fifths of the full run's.
    assert levels(karras)[5] == 511
    assert exact_policy(karras, full, levels=levels).guidance == Guidance(stop_step=4)
    # What the pipeline refuses is judged as far as the policy says.
    refused = Policy(steps=3, scheduler=SchedulerChoice(name="NoScheduler"))
    assert levels(refused) == plain_levels(refused)


@pytest.mark.parametrize("guidance", [None, Guidance(stop_step=20), Guidance(start_step=3, stop_step=17)])
def test_exact_runs_are_known_on_the_grid_or_not(guidance: Guidance | None) -> None:
    assert is_exact(Policy(steps=20, guidance=guidance), FULL)
    assert not is_exact(Policy(steps=19), FULL)
