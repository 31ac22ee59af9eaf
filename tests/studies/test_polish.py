"""Hill climbing on schedules: what moves, what stays, and that it gets better and ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from search_spaces.solvers import OWN, Solver
from studies.search.fitted_noise_levels import fitted_noise_levels
from studies.search.polish import computing_step_shifts, noise_level_shifts, polished

STEPS = 8


def masked(*steps: int, **fields: Any) -> Policy:
    return Policy(steps=STEPS, cache=(CacheRule(units=("up_blocks.1",), compute_steps=steps),), **fields)


def trailing(steps: int) -> list[int]:
    return [round(1000 * (1 - step / steps)) - 1 for step in range(steps)]


SOLVER = Solver(timesteps=trailing)

masks = st.sets(st.integers(1, STEPS - 1), max_size=STEPS - 2).map(lambda steps: masked(0, *sorted(steps)))


@given(masks)
def test_shifts_keep_the_number_of_computing_steps(policy: Policy) -> None:
    for neighbour in computing_step_shifts(policy):
        before, after = set(policy.cache[0].compute_steps), set(neighbour.cache[0].compute_steps)
        assert len(after) == len(before) and len(before - after) == 1


def test_near_shifts_come_first_and_all_others_follow() -> None:
    found = [policy.cache[0].compute_steps for policy in computing_step_shifts(masked(0, 3))]
    assert found[:2] == [(0, 2), (0, 4)]
    assert sorted(found) == [(0, step) for step in range(1, STEPS) if step != 3]


def test_what_must_compute_stays() -> None:
    stage, guidance = ResolutionStage(scale=0.5, until_step=2), Guidance(start_step=4, stop_step=6)
    policy = masked(0, 2, 4, 5, resolution=(stage,), guidance=guidance)
    moved = [
        set(policy.cache[0].compute_steps) - set(each.cache[0].compute_steps) for each in computing_step_shifts(policy)
    ]
    assert moved and all(gone == {5} for gone in moved)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=6, unique=True))
def test_noise_levels_stay_in_order_and_the_first_where_it_is(rest: list[int]) -> None:
    levels = (999, *sorted(rest, reverse=True))
    policy = Policy(steps=len(levels), timesteps=levels)
    for neighbour in noise_level_shifts(policy):
        assert isinstance(neighbour.timesteps, tuple)
        assert neighbour.timesteps[0] == 999 and neighbour.timesteps[-1] > 0
        assert sum(a != b for a, b in zip(levels, neighbour.timesteps, strict=True)) == 1


def test_sigmas_move_too() -> None:
    found = [each.sigmas for each in noise_level_shifts(Policy(steps=2, sigmas=(1.0, 0.5)))]
    assert found[:2] == [(1.0, 0.75), (1.0, 0.25)]


def test_levels_that_nobody_listed_do_not_move() -> None:
    assert list(noise_level_shifts(Policy(steps=5))) == []


@given(masks, st.integers(1, 60))
def test_climbing_never_makes_it_worse_and_asks_as_often_as_it_may(policy: Policy, evaluations: int) -> None:
    asked = []

    def error(each: Policy) -> float:
        asked.append(each.key)
        return float(sum((step - 5) ** 2 for step in each.cache[0].compute_steps))

    found = polished(policy, error, computing_step_shifts, evaluations)
    assert found.error <= found.before == error(policy)
    assert found.evaluations == len(asked) - 1 == len(set(asked[:-1])) <= evaluations


def test_climbing_ends_at_the_best_mask() -> None:
    def error(policy: Policy) -> float:
        return float(sum(min(abs(step - best) for best in (0, 4, 7)) for step in policy.cache[0].compute_steps))

    found = polished(masked(0, 1, 2), error, computing_step_shifts, 1000)
    assert found.policy.cache[0].compute_steps == (0, 4, 7) and found.error == 0


def test_fitted_levels_find_a_known_optimum() -> None:
    best = (999, 700, 480, 100)

    def error(policy: Policy) -> float:
        assert isinstance(policy.timesteps, tuple)
        return float(sum(abs(a - b) for a, b in zip(policy.timesteps, best, strict=True)))

    found = fitted_noise_levels(SOLVER, 4, error, evaluations=400)
    assert found is not None and found.error < 30
    assert found.before == error(Policy(steps=4, timesteps=tuple(trailing(4))))


@pytest.mark.parametrize("evaluations", [9, 20])
def test_fitting_asks_no_more_than_it_may(evaluations: int) -> None:
    asked: list[str] = []

    def error(policy: Policy) -> float:
        asked.append(policy.key)
        return 1 / (1 + len(asked))

    found = fitted_noise_levels(SOLVER, 6, error, evaluations)
    assert found is not None and found.evaluations == len(asked) <= evaluations


def test_a_solver_that_takes_no_list_has_nothing_to_fit() -> None:
    assert fitted_noise_levels(OWN, 6, lambda policy: 0.0) is None
