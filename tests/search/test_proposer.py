from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.core.errors import InputError
from autotune.core.naming import FEWER_STEPS
from autotune.cost import Limits, Pricer, parse_budget
from autotune.runtime import full_policy
from autotune.search.proposer import LEAST_USED, Proposer
from autotune.search.recipes import recipes_at_budget
from search_spaces import SearchSpace, space_for
from tests.support.profiles import synthetic_profile

FULL_STEPS, MAX_STEPS = 20, 30


@pytest.fixture(scope="module")
def pricer(pipe: Any) -> Pricer:
    return Pricer(pipe, full_steps=FULL_STEPS)


@pytest.fixture(scope="module")
def space(pipe: Any) -> SearchSpace:
    return space_for(pipe, steps=FULL_STEPS)


def proposer(space: SearchSpace, pricer: Pricer, budget: str) -> Proposer:
    limits = parse_budget(budget).limits(pricer.full_cost())
    return Proposer(space, pricer.price, limits, MAX_STEPS)


def random_values(space: SearchSpace, seed: int) -> dict[str, int]:
    numbers = random.Random(seed)
    return {knob.name: numbers.randint(knob.low, knob.high) for knob in space.knobs}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), percent=st.integers(5, 100))
def test_nothing_over_budget_and_no_step_left_unspent(
    space: SearchSpace, pricer: Pricer, seed: int, percent: int
) -> None:
    proposing = proposer(space, pricer, f"{percent}%")
    proposal = proposing.propose(random_values(space, seed))
    assert proposal is not None
    assert pricer.price(proposal.policy) == proposal.cost
    assert proposing.limits.allow(proposal.cost)
    assert proposal.policy == space.policy(proposal.values, proposal.policy.steps)
    if proposal.policy.steps < MAX_STEPS:
        one_more = space.policy(proposal.values, proposal.policy.steps + 1)
        assert not proposing.limits.allow(pricer.price(one_more))


def test_candidates_spend_what_they_are_given(space: SearchSpace, pricer: Pricer) -> None:
    proposing = proposer(space, pricer, "40%")
    proposals = [proposing.propose(random_values(space, seed)) for seed in range(100)]
    spent = [p is not None and proposing.limits.used(p.cost) >= LEAST_USED for p in proposals]
    assert sum(spent) >= 90


def test_a_setting_too_cheap_is_repaired_in_the_documented_order(space: SearchSpace, pricer: Pricer) -> None:
    plain = space.recipes[0].values
    cheap: Mapping[str, int] = {**plain, "depth": 4, "interval": 6, "guidance_stop": 5}
    proposing = proposer(space, pricer, "90%")
    proposal = proposing.propose(cheap)
    assert proposal is not None
    assert proposing.limits.used(proposal.cost) >= LEAST_USED
    # Guidance comes first and was moved all the way; depth comes after the interval and was not needed.
    assert proposal.values["guidance_stop"] == 20
    assert proposal.values["interval"] < 6
    assert proposal.values["depth"] == 4


def test_a_setting_that_spends_enough_is_left_alone(space: SearchSpace, pricer: Pricer) -> None:
    values = {**space.recipes[0].values, "depth": 2, "interval": 2}
    proposal = proposer(space, pricer, "40%").propose(values)
    assert proposal is not None and proposal.values == values


def test_fewer_steps_is_exactly_the_share_of_the_steps(space: SearchSpace, pricer: Pricer) -> None:
    proposal = proposer(space, pricer, "40%").propose(space.recipes[0].values)
    assert proposal is not None
    assert proposal.policy.id == "s8"
    assert proposal.cost.relative == pytest.approx(0.4)


def test_below_one_step_there_is_no_policy(space: SearchSpace, pricer: Pricer) -> None:
    proposing = proposer(space, pricer, "4%")
    assert proposing.propose(space.recipes[0].values) is None
    with pytest.raises(InputError, match="pays for no complete denoising step"):
        recipes_at_budget(proposing)


def test_recipes_fit_the_budget_and_come_once(space: SearchSpace, pricer: Pricer) -> None:
    proposing = proposer(space, pricer, "40%")
    recipes = recipes_at_budget(proposing)
    assert recipes[0].name == FEWER_STEPS
    assert len({recipe.proposal.policy.key for recipe in recipes}) == len(recipes) == len(space.recipes)
    assert all(proposing.limits.allow(recipe.proposal.cost) for recipe in recipes)


def test_proposals_record_their_model(pipe: Any, space: SearchSpace, pricer: Pricer) -> None:
    model = full_policy(pipe, FULL_STEPS).model
    proposal = Proposer(space, pricer.price, Limits(flops=pricer.full_flops()), MAX_STEPS, model).propose(
        space.recipes[1].values
    )
    assert proposal is not None and proposal.policy.model == model


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), kilobytes=st.integers(0, 60))
def test_no_proposal_keeps_more_than_memory_allows(
    space: SearchSpace, pricer: Pricer, seed: int, kilobytes: int
) -> None:
    limits = parse_budget("50%").limits(pricer.full_cost(), kilobytes * 1000)
    proposal = Proposer(space, pricer.price, limits, MAX_STEPS).propose(random_values(space, seed))
    assert proposal is not None
    assert proposal.cost.memory_bytes <= kilobytes * 1000
    assert limits.allow(proposal.cost)


def test_memory_to_spare_changes_nothing(space: SearchSpace, pricer: Pricer) -> None:
    values = space.recipes[1].values
    without = proposer(space, pricer, "40%").propose(values)
    limits = parse_budget("40%").limits(pricer.full_cost(), 10**9)
    assert Proposer(space, pricer.price, limits, MAX_STEPS).propose(values) == without


def test_too_little_memory_moves_only_what_takes_memory(space: SearchSpace, pricer: Pricer) -> None:
    values = {**space.recipes[1].values, "guidance_stop": 10}
    limits = parse_budget("40%").limits(pricer.full_cost(), 0)
    proposal = Proposer(space, pricer.price, limits, MAX_STEPS).propose(values)
    assert proposal is not None
    assert proposal.values["guidance_stop"] == 10 and not proposal.policy.cache


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), percent=st.integers(20, 100))
def test_a_budget_in_time_is_kept_and_spent(space: SearchSpace, pricer: Pricer, seed: int, percent: int) -> None:
    timed = pricer.on(synthetic_profile(pricer))
    limits = parse_budget(f"{percent}%ms,90%").limits(timed.full_cost())
    proposal = Proposer(space, timed.price, limits, MAX_STEPS).propose(random_values(space, seed))
    assert proposal is not None and proposal.cost.latency_ms is not None
    assert limits.latency_ms is not None and proposal.cost.latency_ms <= limits.latency_ms
    if proposal.policy.steps < MAX_STEPS:
        one_more = timed.price(space.policy(proposal.values, proposal.policy.steps + 1))
        assert not limits.allow(one_more)


def all_steps(space: SearchSpace, pricer: Pricer, budget: str) -> Proposer:
    limits = parse_budget(budget).limits(pricer.full_cost())
    return proposer(space, pricer, "100%").restricted(limits, steps=FULL_STEPS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), percent=st.integers(10, 100))
def test_of_one_number_of_steps_nothing_is_over_budget_either(
    space: SearchSpace, pricer: Pricer, seed: int, percent: int
) -> None:
    proposing = all_steps(space, pricer, f"{percent}%")
    proposal = proposing.propose(random_values(space, seed))
    assert proposal is not None
    assert proposal.policy.steps == FULL_STEPS
    assert proposing.limits.allow(proposal.cost)
    assert proposal.policy == space.policy(proposal.values, FULL_STEPS)


@pytest.mark.parametrize("budget", ["15%", "40%", "80%"])
def test_of_one_number_of_steps_candidates_spend_what_they_are_given(
    budget: str, space: SearchSpace, pricer: Pricer
) -> None:
    proposing = all_steps(space, pricer, budget)
    proposals = [proposing.propose(random_values(space, seed)) for seed in range(60)]
    spent = [p is not None and proposing.limits.used(p.cost) >= LEAST_USED for p in proposals]
    assert sum(spent) >= 54


def test_what_saves_already_is_what_a_setting_too_costly_saves_more_of(space: SearchSpace, pricer: Pricer) -> None:
    values = {**space.recipes[0].values, "depth": 4, "interval": 2}
    proposal = all_steps(space, pricer, "50%").propose(values)
    assert proposal is not None
    assert proposal.values["interval"] > 2
    assert proposal.values == {**values, "interval": proposal.values["interval"]}


def test_no_setting_of_one_number_of_steps_is_cheaper_than_the_cheapest(space: SearchSpace, pricer: Pricer) -> None:
    proposing = all_steps(space, pricer, "100%")
    least = proposing.cheapest.cost.flops
    assert all(pricer.price(space.sample(seed, FULL_STEPS)).flops >= least for seed in range(50))
    below = Limits(flops=least - 1)
    assert all(proposing.restricted(below).propose(random_values(space, seed)) is None for seed in range(5))
    assert proposing.restricted(Limits(flops=least)).propose(space.recipes[0].values) is not None
