"""What each of the three ways to spend less may do."""

from __future__ import annotations

import random
from typing import Any

import pytest

from autotune.cost import Pricer, parse_budget
from autotune.results.tradeoff import BOTH, CHEAPER, FEWER
from autotune.search.arms import known_recipes, proposer_for
from autotune.search.proposer import Proposer
from search_spaces import space_for

FULL_STEPS, MAX_STEPS = 20, 30


@pytest.fixture(scope="module")
def pricer(pipe: Any) -> Pricer:
    return Pricer(pipe, full_steps=FULL_STEPS)


def arm(name: str, pipe: Any, pricer: Pricer, budget: str) -> Proposer:
    limits = parse_budget(budget).limits(pricer.full_cost())
    any_steps = Proposer(space_for(pipe, steps=FULL_STEPS), pricer.price, limits, MAX_STEPS)
    return proposer_for(name, any_steps, limits, FULL_STEPS)


def sampled(proposer: Proposer, count: int = 20) -> list[Any]:
    draw = random.Random(0)
    values = [{knob.name: draw.randint(knob.low, knob.high) for knob in proposer.space.knobs} for _ in range(count)]
    return [proposer.propose(each) for each in values]


def test_fewer_steps_are_plain_steps_by_any_solver_at_any_noise(pipe: Any, pricer: Pricer) -> None:
    policies = [proposal.policy for proposal in sampled(arm(FEWER, pipe, pricer, "40%"))]
    assert {policy.steps for policy in policies} == {8}
    assert not any(policy.cache or policy.resolution or policy.guidance for policy in policies)
    assert len({policy.scheduler.name if policy.scheduler else None for policy in policies}) > 1
    assert len({policy.timesteps for policy in policies}) > 2


def test_cheaper_steps_are_as_many_as_the_full_run_has(pipe: Any, pricer: Pricer) -> None:
    proposals = sampled(arm(CHEAPER, pipe, pricer, "40%"))
    assert {proposal.policy.steps for proposal in proposals} == {FULL_STEPS}
    assert all(proposal.cost.relative <= 0.4 for proposal in proposals)


def test_both_may_have_any_number_of_steps(pipe: Any, pricer: Pricer) -> None:
    assert len({proposal.policy.steps for proposal in sampled(arm(BOTH, pipe, pricer, "40%"))}) > 3


def test_recipes_of_plain_steps_are_no_cheaper_steps_unless_all_of_them_are_paid_for(pipe: Any, pricer: Pricer) -> None:
    names = {
        budget: {recipe.name for recipe in known_recipes(CHEAPER, arm(CHEAPER, pipe, pricer, budget))}
        for budget in ("40%", "100%")
    }
    assert not any("all steps" in name or "fewer steps" in name for name in names["40%"])
    assert "DeepCache, interval 2, brought to the budget" in names["40%"]
    assert {"all steps", "all steps, UniPC"} <= names["100%"]


def test_fewer_steps_have_one_recipe_for_each_solver_and_one_at_low_noise(pipe: Any, pricer: Pricer) -> None:
    proposer = arm(FEWER, pipe, pricer, "40%")
    assert [recipe.proposal.values["solver"] for recipe in known_recipes(FEWER, proposer)] == [0, 1, 2, 1]
    too_little = arm(FEWER, pipe, pricer, "4%")
    assert known_recipes(FEWER, too_little) == ()
    assert too_little.cheapest.cost.relative == pytest.approx(1 / FULL_STEPS)
