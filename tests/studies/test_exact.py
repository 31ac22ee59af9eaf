"""The exact run of a policy's intent: guidance at the same noise levels, everything else as the full run does it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, SchedulerChoice
from studies.proxy.chosen import favourites
from studies.proxy.exact import exact_run, snapped_run


def interval(policy: Policy, every: int = 1) -> tuple[int, int]:
    guidance = snapped_run(policy, 20, every).guidance
    return (0, 20) if guidance is None else (guidance.start_step, guidance.stop_step)


def guided(steps: int, start: int, stop: int) -> Policy:
    return Policy(steps=steps, guidance=Guidance(start_step=start, stop_step=stop))


def test_what_approximates_is_gone() -> None:
    policy = Policy(
        steps=6,
        scheduler=SchedulerChoice(name="DPMSolverMultistepScheduler"),
        resolution=(ResolutionStage(scale=0.5, until_step=2),),
        cache=(CacheRule(units=("**.ff",), compute_steps=(0, 3)),),
        guidance=Guidance(start_step=0, stop_step=6, after="nothing"),
    )
    assert exact_run(policy, 20) == snapped_run(policy, 20, 2) == Policy(steps=20)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(guided(6, 2, 5), (7, 17)), (guided(7, 2, 6), (6, 17)), (guided(15, 5, 12), (7, 16)), (guided(40, 0, 1), (0, 1))],
)
def test_snapped_to_single_steps_guidance_keeps_its_noise_levels(policy: Policy, expected: tuple[int, int]) -> None:
    assert interval(policy) == expected


def test_searches_have_the_middle_between_two_steps_at_the_same_noise() -> None:
    assert exact_run(guided(6, 2, 5), 20).guidance == Guidance(start_step=6, stop_step=16)


def test_listed_timesteps_count_as_they_are() -> None:
    policy = Policy(steps=4, timesteps=(999, 899, 499, 99), guidance=Guidance(start_step=1, stop_step=3))
    assert interval(policy) == (2, 18)


@pytest.mark.parametrize(
    ("policy", "expected"), [(guided(20, 7, 15), (8, 16)), (guided(20, 0, 19), (0, 18)), (guided(20, 5, 20), (6, 20))]
)
def test_snapping_takes_the_nearest_but_never_adds_the_last_step(policy: Policy, expected: tuple[int, int]) -> None:
    assert interval(policy, 2) == expected


@given(st.integers(1, 40), st.data(), st.sampled_from([1, 2, 4, 5]))
def test_an_interval_is_never_empty_and_lies_on_the_grid(steps: int, data: st.DataObject, every: int) -> None:
    start = data.draw(st.integers(0, steps - 1))
    stop = data.draw(st.integers(start + 1, steps))
    low, high = interval(guided(steps, start, stop), every)
    assert 0 <= low < high <= 20
    assert low % every == 0 and high % every == 0


@pytest.mark.parametrize("model", ["emoji-unet", "emoji-dit"])
def test_favourites_of_a_search_differ_in_their_levers(model: str) -> None:
    found = favourites(model)
    levers = {
        (
            each.scheduler and each.scheduler.name,
            each.timesteps if isinstance(each.timesteps, str) else "listed",
            bool(each.resolution),
            frozenset(rule.mode for rule in each.cache),
            each.guidance and each.guidance.after,
        )
        for each in found
    }
    assert len(levers) == len(found) == 8
