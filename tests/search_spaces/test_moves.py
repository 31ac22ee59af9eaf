from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from search_spaces import moved
from tests.search_spaces.test_unet_space import SPACE, STEPS, VALUES
from tests.search_spaces.test_unet_space import values as knobs


@settings(max_examples=200)
@given(VALUES, STEPS, st.integers(0, 2**32))
def test_moves_lead_to_other_valid_policies_of_as_many_steps(values: dict[str, int], steps: int, seed: int) -> None:
    policy = SPACE.policy(values, steps)
    draw = random.Random(seed)
    for _ in range(5):
        neighbour = moved(policy, draw)
        if neighbour is not None:
            assert neighbour.steps == steps
            assert neighbour.key != policy.key
            policy = neighbour


def test_a_plain_run_has_no_moves() -> None:
    assert moved(Policy(steps=8), random.Random(0)) is None


def test_noise_levels_move_between_their_neighbours_and_the_first_stays() -> None:
    timesteps = Policy(steps=5, timesteps=(999, 800, 600, 400, 200))
    sigmas = Policy(steps=5, sigmas=(1.0, 0.8, 0.6, 0.4, 0.2))
    seen = set()
    for seed in range(100):
        for policy in (timesteps, sigmas):
            neighbour = moved(policy, random.Random(seed))
            assert neighbour is not None
            before, after = (each.sigmas or each.timesteps for each in (policy, neighbour))
            assert not isinstance(before, str) and not isinstance(after, str)
            assert after[0] == before[0]
            (changed,) = (index for index in range(5) if before[index] != after[index])
            seen.add(changed)
    assert seen == {1, 2, 3, 4}


def test_every_kind_of_decision_moves() -> None:
    policy = Policy(
        steps=12,
        timesteps=tuple(range(990, 30, -80)),
        resolution=(ResolutionStage(scale=0.5, until_step=4),),
        guidance=Guidance(start_step=2, stop_step=9),
        cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 2, 4, 6, 8)),),
    )
    changed = set()
    for seed in range(200):
        neighbour = moved(policy, random.Random(seed))
        if neighbour is not None:
            changed |= {name for name, value in dict(neighbour).items() if value != getattr(policy, name)}
            (rule,) = neighbour.cache
            assert neighbour.resolution[0].until_step in rule.compute_steps
    assert changed == {"timesteps", "resolution", "guidance", "cache"}


def test_a_rule_that_would_compute_always_is_left_out() -> None:
    policy = Policy(steps=2, cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0,)),))
    found = [moved(policy, random.Random(seed)) for seed in range(20)]
    assert {neighbour.cache for neighbour in found if neighbour is not None} == {()}


def test_spelled_out_lists_what_the_solver_chooses_itself() -> None:
    policy = SPACE.policy(knobs(depth=1, interval=2), 10)
    assert SPACE.explicit_noise_levels(policy) == policy, "this space's only solver takes no list"


def test_what_is_fitted_stays_with_its_steps() -> None:
    """Fitted weights, and a stage before them; and guidance as a rate."""
    timesteps = tuple(range(990, 30, -80))
    fitted = CacheRule(
        units=("up_blocks.1",), mode="forecast", compute_steps=(0, 2, 4, 6, 8, 10), weights=((1.0,),) * 6
    )
    plain = CacheRule(units=("mid_block",), compute_steps=(0, 3, 4, 6))
    for policy in (
        Policy(
            version=3,
            steps=12,
            timesteps=timesteps,
            resolution=(ResolutionStage(scale=0.5, until_step=4),),
            cache=(fitted,),
        ),
        Policy(version=3, steps=12, timesteps=timesteps, cache=(plain, fitted)),
        Policy(
            version=3, steps=12, timesteps=timesteps, guidance=Guidance(start_step=2, stop_step=9, compute_steps=(2, 5))
        ),
    ):
        for seed in range(100):
            neighbour = moved(policy, random.Random(seed))
            if neighbour is not None:
                assert neighbour.resolution == policy.resolution and neighbour.guidance == policy.guidance
                assert not policy.cache or neighbour.cache[-1] == fitted
