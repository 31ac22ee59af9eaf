from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.cost import Pricer, parse_budget
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, policy_from_dict
from autotune.search.local_search import Refiner, rescheduled
from autotune.search.proposer import Proposer
from autotune.search.recipes import recipes_at_budget
from autotune.search.repetitions import PLAN
from autotune.search.sensitivity import Sensitivity
from autotune.study.candidate import Candidate
from autotune.study.trials import DESCRIPTION, POLICY, REFINES, attributes, begin
from search_spaces import space_for
from search_spaces.levers import is_on
from tests.search.sensitivities import with_even_strides


def sensitivity(*changes: float) -> Sensitivity:
    return with_even_strides((("up_blocks.1",),), np.array([changes]))


def rule(*compute_steps: int) -> CacheRule:
    return CacheRule(units=("up_blocks.1",), mode="forecast", order=1, compute_steps=compute_steps)


def test_outputs_are_computed_where_they_change_most() -> None:
    # Nearly all of the change happens at steps 5 and 6.
    found = rescheduled(Policy(steps=8, cache=(rule(0, 3, 6),)), sensitivity(0, 0.01, 0.01, 0.01, 0.01, 0.5, 0.5, 0.01))
    assert found == Policy(steps=8, cache=(rule(0, 5, 6),))


def test_steps_that_compute_in_any_case_are_among_them() -> None:
    policy = Policy(
        steps=8,
        resolution=(ResolutionStage(scale=0.5, until_step=3),),
        guidance=Guidance(start_step=2, stop_step=6),
        cache=(rule(0, 2, 3, 6),),
    )
    (found,) = rescheduled(policy, sensitivity(*[0.0] + [0.1] * 6 + [0.9])).cache
    assert {0, 2, 3} < set(found.compute_steps)
    assert len(found.compute_steps) == 4
    assert 7 in found.compute_steps


def test_the_way_counts_and_not_the_number_of_steps() -> None:
    """A profile of eight steps serves a policy of sixteen."""
    policy = Policy(steps=16, cache=(rule(0, 8),))
    (found,) = rescheduled(policy, sensitivity(0, 0, 0, 0, 0, 0, 1, 0)).cache
    assert found.compute_steps[1] in (11, 12)


def test_last_steps_that_compute_still_do() -> None:
    nothing_at_the_end = sensitivity(0, 0.5, 0.5, 0.5, 0.5, 0, 0, 0)
    (found,) = rescheduled(Policy(steps=8, cache=(rule(0, 2, 6, 7),)), nothing_at_the_end).cache
    assert {6, 7} < set(found.compute_steps) and len(found.compute_steps) == 4
    (found,) = rescheduled(Policy(steps=8, cache=(rule(0, 2, 4, 6),)), nothing_at_the_end).cache
    assert not {6, 7} & set(found.compute_steps), "one that reuses at the end may compute wherever it likes"


@given(st.sets(st.integers(1, 11), min_size=1), st.data())
def test_a_rule_within_another_stays_within_it(steps: set[int], data: st.DataObject) -> None:
    deeper = data.draw(st.sets(st.sampled_from(sorted(steps)), max_size=len(steps) - 1))
    rules = rule(0, *sorted(steps)), rule(0, *sorted(deeper))
    changes = data.draw(st.lists(st.floats(0, 1), min_size=24, max_size=24))
    measured = with_even_strides((("a",), ("b",)), np.reshape(changes, (2, 12)))
    outer, inner = rescheduled(Policy(steps=12, cache=rules), measured).cache
    assert set(inner.compute_steps) < set(outer.compute_steps)
    assert [len(each.compute_steps) for each in (outer, inner)] == [len(each.compute_steps) for each in rules]


@pytest.fixture(scope="module")
def proposer(pipe: Any) -> Proposer:
    pricer = Pricer(pipe, full_steps=20)
    limits = parse_budget("40%").limits(pricer.full_cost())
    return Proposer(space_for(pipe, steps=20), pricer.price, limits, 60)


def study_of(proposer: Proposer, count: int, *, scheduled: bool = False) -> optuna.Study:
    """Of recipes, the first of which is best; on request only of those whose schedules can be changed."""
    study = optuna.create_study()
    recipes = [each for each in recipes_at_budget(proposer) if each.proposal.policy.cache or not scheduled]
    for number, recipe in enumerate(recipes[:count]):
        add(study, proposer, recipe.proposal.values, float(number))
    return study


def neighbours(proposer: Proposer, study: optuna.Study, count: int) -> list[Candidate]:
    found = [Refiner(proposer, seed).candidate(study) for seed in range(count)]
    return [candidate for candidate in found if candidate is not None]


def test_neighbours_are_new_within_the_budget_and_of_both_kinds(proposer: Proposer) -> None:
    study = study_of(proposer, 8)
    known = {attributes(trial)[PLAN] for trial in study.get_trials()}
    found = neighbours(proposer, study, 60)
    assert len(found) == 60
    schedules = [each for each in found if REFINES in each.user_attrs]
    assert 15 < len(schedules) < 45
    for candidate in found:
        if candidate in schedules:
            policy = policy_from_dict(candidate.user_attrs[DESCRIPTION][POLICY])
        else:
            proposal = proposer.propose(candidate.values)
            assert proposal is not None and proposal.values == candidate.values
            policy = proposal.policy
        assert proposer.allows(policy) and proposer.plan(policy) not in known


def test_noise_levels_that_no_move_changed_are_the_solvers_own(proposer: Proposer) -> None:
    """Listed they make the same pictures, and would look like a policy that was not evaluated before."""
    plain = proposer.space.recipes[0].values
    proposal = proposer.propose({**plain, "solver": 1, "guidance_start": 6, "guidance_stop": 16})
    assert proposal is not None
    study = optuna.create_study()
    add(study, proposer, proposal.values, 0.0)
    # With two trials the next neighbour is not one by guidance.
    add(study, proposer, plain, 1.0)
    listed = proposer.space.explicit_noise_levels(proposal.policy)
    assert listed.key != proposal.policy.key
    found = [each for each in neighbours(proposer, study, 100) if REFINES in each.user_attrs]
    policies = [policy_from_dict(each.user_attrs[DESCRIPTION][POLICY]) for each in found]
    assert all(policy.timesteps != listed.timesteps for policy in policies)
    unmoved = [policy for policy in policies if policy.timesteps == "default"]
    assert 0 < len(unmoved) < len(policies)
    assert all(policy.key != proposal.policy.key for policy in unmoved), "moves that lead back are no neighbour"


def test_several_candidates_have_neighbours_the_best_one_most(proposer: Proposer) -> None:
    found = neighbours(proposer, study_of(proposer, 4, scheduled=True), 120)
    origins = [each.user_attrs[REFINES] for each in found if REFINES in each.user_attrs]
    counts = [origins.count(number) for number in range(4)]
    assert counts[0] > counts[1] > counts[2] > 0 == counts[3]


def test_levers_are_turned_on_and_off(proposer: Proposer) -> None:
    """From few levers to one more, and from one to none."""
    found = neighbours(proposer, study_of(proposer, 2), 120)
    levers = proposer.space.levers
    plain = proposer.space.recipes[0].values
    pulled = [sum(is_on(lever, levers, each.values, plain) for lever in levers) for each in found]
    assert 0 in pulled or 1 in pulled
    assert max(pulled) >= 2


def test_the_same_seed_and_study_give_the_same_neighbour(proposer: Proposer) -> None:
    study = study_of(proposer, 5)
    assert neighbours(proposer, study, 10) == neighbours(proposer, study, 10)


def test_what_another_worker_tries_is_not_proposed_again(proposer: Proposer) -> None:
    """That worker began before the number of evaluated trials, which decides the moves, has changed."""
    study, refiner = study_of(proposer, 5), Refiner(proposer, 0)
    first = refiner.candidate(study)
    assert first is not None
    if REFINES in first.user_attrs:
        policy = policy_from_dict(first.user_attrs[DESCRIPTION][POLICY])
    else:
        proposal = proposer.propose(first.values)
        assert proposal is not None
        policy = proposal.policy
    described = {DESCRIPTION: {POLICY: policy.to_dict(), PLAN: proposer.plan(policy)}}
    begin(study, replace(first, user_attrs={**first.user_attrs, **described}))
    second = refiner.candidate(study)
    assert second is not None and second != first


def test_without_a_candidate_of_all_pictures_there_is_no_neighbour(proposer: Proposer) -> None:
    assert Refiner(proposer, 0).candidate(optuna.create_study()) is None


def simple_study(proposer: Proposer, *, more: Mapping[str, int] | None = None) -> optuna.Study:
    """Three trials, after which one by guidance is next. Best is guidance in steps 3 to 8 with ``more`` pulled."""
    study, plain = optuna.create_study(), proposer.space.recipes[0].values
    guided = {"guidance_start": 6, "guidance_stop": 16}
    for loss, values in enumerate([{**guided, **(more or {"solver": 1})}, guided, {}]):
        add(study, proposer, {**plain, **values}, float(loss))
    return study


def add(study: optuna.Study, proposer: Proposer, values: Mapping[str, int], loss: float) -> None:
    proposal = proposer.propose(values)
    assert proposal is not None
    begun = begin(study, Candidate(proposal.values))
    policy = proposal.policy
    begun.set_user_attr(DESCRIPTION, {PLAN: proposer.plan(policy), POLICY: policy.to_dict()})
    for knob in proposer.space.knobs:
        begun.suggest_int(knob.name, knob.low, knob.high)
    study.tell(begun, loss)


def intervals(proposer: Proposer, study: optuna.Study, count: int) -> list[tuple[int, int, int, int, float]]:
    """Solver, steps, interval and factor of guidance of two candidates of three, none of which is any good."""
    found = []
    for number in range(count):
        if len(study.trials) % 3 == 2:
            # Something else is next.
            add(study, proposer, {**proposer.space.recipes[0].values, "skew": number + 1, "solver": 1}, 9.0)
        candidate = Refiner(proposer, 0).candidate(study)
        assert candidate is not None and REFINES not in candidate.user_attrs
        proposal = proposer.propose(candidate.values)
        assert proposal is not None
        guidance = proposal.policy.guidance
        start, stop = (0, proposal.policy.steps) if guidance is None else (guidance.start_step, guidance.stop_step)
        factor = guidance.factor or 1.0 if guidance else 1.0
        found.append((candidate.values["solver"], proposal.policy.steps, start, stop, factor))
        add(study, proposer, candidate.values, 9.0)
    return found


def test_two_neighbours_of_three_move_the_guidance_of_the_best_simple_policy(proposer: Proposer) -> None:
    study = simple_study(proposer)
    assert intervals(proposer, study, 3) == [(1, 10, 3, 8, 1.25), (1, 10, 3, 9, 1), (1, 10, 2, 8, 1)]


def test_one_that_is_better_is_gone_on_from(proposer: Proposer) -> None:
    study = simple_study(proposer)
    stronger = Refiner(proposer, 0).candidate(study)
    assert stronger is not None
    add(study, proposer, stronger.values, -1.0)
    assert intervals(proposer, study, 2) == [(1, 10, 3, 8, 1.5), (1, 10, 3, 9, 1.25)]


def test_a_better_interval_is_gone_on_from(proposer: Proposer) -> None:
    study = simple_study(proposer)
    plain = proposer.space.recipes[0].values
    add(study, proposer, {**plain, "solver": 1, "guidance_start": 6, "guidance_stop": 18}, -1.0)
    found = intervals(proposer, study, 2)
    assert found == [(1, 10, 3, 9, 1.25), (1, 9, 3, 9, 1)], "guided to the end, which leaves nine steps"


def test_what_reuses_or_shrinks_is_no_simple_policy(proposer: Proposer) -> None:
    study = simple_study(proposer, more={"depth": 1, "interval": 2})
    assert intervals(proposer, study, 1) == [(0, 10, 3, 8, 1.25)]
    candidate = Refiner(proposer, 0).candidate(study)
    assert candidate is not None and candidate.values["depth"] == 0


def test_what_lies_outside_of_narrowed_ranges_has_no_such_neighbours(proposer: Proposer) -> None:
    narrowed = proposer.restricted(proposer.limits, space=proposer.space.within({"depth": (1, 2), "interval": (2, 3)}))
    candidate = Refiner(narrowed, 0).candidate(simple_study(proposer))
    # What changes a schedule keeps the knobs that it came from.
    assert candidate is None or REFINES in candidate.user_attrs or candidate.values["interval"] in (2, 3)
