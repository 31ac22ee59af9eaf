"""What is tried once the known recipes were: the most promising together."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from autotune.cost import Pricer, parse_budget
from autotune.search.combination import combination
from autotune.search.proposer import Proposer
from autotune.search.recipes import recipes_at_budget
from autotune.search.repetitions import PLAN
from autotune.search.samplers import sampler_for
from autotune.study.candidate import Candidate
from autotune.study.trials import COMBINES, DESCRIPTION, FAILURE, POLICY, RECIPE, begin, put_back, recipe_of, waiting
from search_spaces import space_for

STEPS, MOST_STEPS = 20, 60
TRIALS = 6
"""A third of which are combinations."""
GOOD = {"DeepCache, interval 2": 0.1, "guidance in the middle": 0.2, "half the steps at half size": 0.4}


@pytest.fixture(scope="module")
def free(pipe: Any) -> Proposer:
    """Of the whole space, other solvers and noise levels among it."""
    pricer = Pricer(pipe, full_steps=STEPS)
    limits = parse_budget("40%").limits(pricer.full_cost())
    return Proposer(space_for(pipe, steps=STEPS), pricer.price, limits, MOST_STEPS)


@pytest.fixture(scope="module")
def proposer(free: Proposer) -> Proposer:
    """With nothing to cross guidance with."""
    return free.restricted(free.limits, space=free.space.fixed({"solver": 0, "skew": 0}))


def add(study: optuna.Study, proposer: Proposer, candidate: Candidate, loss: float, *, pruned: bool = False) -> None:
    knobs: dict[str, BaseDistribution] = {
        knob.name: IntDistribution(knob.low, knob.high) for knob in proposer.space.knobs
    }
    proposal = proposer.propose(candidate.values)
    assert proposal is not None
    described = {DESCRIPTION: {PLAN: proposer.plan(proposal.policy), POLICY: proposal.policy.to_dict()}}
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
            params=dict(candidate.values),
            distributions=knobs,
            value=loss,
            user_attrs={**candidate.user_attrs, **described},
        )
    )


def study_of(proposer: Proposer, losses: Mapping[str, float], *, pruned: bool = False) -> optuna.Study:
    """Recipes that scored ``losses``, all others 0.9; fewer steps 0.5."""
    study = optuna.create_study()
    for recipe in recipes_at_budget(proposer):
        loss = {"fewer steps": 0.5, **losses}.get(recipe.name, 0.9)
        candidate = Candidate(recipe.proposal.values, {RECIPE: recipe.name})
        add(study, proposer, candidate, loss, pruned=pruned and recipe.name != "fewer steps")
    return study


def test_the_best_two_recipes_that_change_different_things_go_together(proposer: Proposer) -> None:
    candidate = combination(study_of(proposer, GOOD), proposer, TRIALS)
    assert candidate is not None
    assert set(candidate.user_attrs[COMBINES]) == {"DeepCache, interval 2", "guidance in the middle"}
    proposal = proposer.propose(candidate.values)
    assert proposal is not None
    policy = proposal.policy
    assert policy.cache and policy.guidance is not None and policy.guidance.start_step
    assert proposer.allows(policy)


def test_solvers_and_noise_levels_are_crossed_with_guidance_first(free: Proposer) -> None:
    """All with all, those that gained most alone first, and nothing that reuses or shrinks before they are through."""
    losses = {"guidance in the middle": 0.2, "fewer steps, UniPC": 0.3, "DeepCache, interval 2": -0.5}
    study, trials = study_of(free, losses), 60
    crossed = []
    while (candidate := combination(study, free, trials)) is not None:
        if any("DeepCache" in name for name in candidate.user_attrs[COMBINES]):
            break
        crossed.append(tuple(candidate.user_attrs[COMBINES]))
        assert free.propose(candidate.values).policy.cache == ()  # type: ignore[union-attr]
        add(study, free, candidate, 0.6)
    assert crossed[0] == ("fewer steps, UniPC", "guidance in the middle")
    steps = {"fewer steps, DPMSolver", "fewer steps, UniPC", "fewer steps, DPMSolver, more at low noise"}
    guidance = {name for name in (recipe.name for recipe in free.space.recipes) if name.startswith("guidance")}
    assert len(guidance) == 4
    assert set(crossed) == set(itertools.product(steps, guidance))


def queue_of(proposer: Proposer, name: str) -> optuna.Study:
    """Recipes before ``name`` have been tried, it and those after it wait."""
    study, waits = optuna.create_study(), False
    for recipe in recipes_at_budget(proposer):
        waits = waits or recipe.name == name
        if waits:
            study.enqueue_trial(dict(recipe.proposal.values), user_attrs={RECIPE: recipe.name})
        else:
            add(study, proposer, Candidate(recipe.proposal.values, {RECIPE: recipe.name}), 0.5)
    return study


@pytest.mark.parametrize(
    ("name", "crossed"),
    [("guidance in the later half", False), ("DeepCache, interval 2", True), ("half the steps at half size", True)],
)
def test_they_come_before_recipes_of_other_things_and_after_those_of_both(
    free: Proposer, name: str, crossed: bool
) -> None:
    study = queue_of(free, name)
    assert (combination(study, free, 60, queued=waiting(study)) is not None) == crossed


def test_while_recipes_wait_nothing_else_is_combined(free: Proposer, proposer: Proposer) -> None:
    study = queue_of(proposer, "half the steps at half size")
    assert combination(study, proposer, 60) is not None
    assert combination(study, proposer, 60, queued=waiting(study)) is None
    # What is no recipe of the space, such as another budget's best, is not kept waiting.
    study = queue_of(free, "no recipe")
    study.enqueue_trial(dict(free.space.recipes[-1].values), user_attrs={RECIPE: "best of 25%"})
    assert combination(study, free, 60, queued=waiting(study)) is None


def test_what_another_worker_tries_is_not_proposed_again(free: Proposer) -> None:
    study = study_of(free, GOOD)
    first = combination(study, free, 60)
    assert first is not None
    proposal = free.propose(first.values)
    assert proposal is not None
    begin(study, replace(first, user_attrs={**first.user_attrs, DESCRIPTION: {PLAN: free.plan(proposal.policy)}}))
    second = combination(study, free, 60)
    assert second is not None and second.user_attrs[COMBINES] != first.user_attrs[COMBINES]


def test_a_small_search_crosses_few_of_them(free: Proposer) -> None:
    study, crossed = study_of(free, GOOD), []
    while (candidate := combination(study, free, 15)) is not None:
        crossed.append(any(name.startswith("fewer steps") for name in candidate.user_attrs[COMBINES]))
        add(study, free, candidate, 0.6)
    assert crossed[:3] == [True] * 3 and not crossed[3] and len(crossed) == 5


def test_late_in_a_search_nothing_else_is_combined(free: Proposer, proposer: Proposer) -> None:
    assert combination(study_of(free, GOOD), free, TRIALS, late=True) is not None
    assert combination(study_of(proposer, GOOD), proposer, TRIALS, late=True) is None


def test_a_third_joins_two_that_paid(proposer: Proposer) -> None:
    study = study_of(proposer, GOOD)
    candidate = combination(study, proposer, TRIALS)
    assert candidate is not None
    add(study, proposer, candidate, -0.2)
    further = combination(study, proposer, TRIALS)
    assert further is not None and set(further.user_attrs[COMBINES]) == set(GOOD)


def test_where_two_did_not_pay_other_two_are_next(proposer: Proposer) -> None:
    study = study_of(proposer, GOOD)
    candidate = combination(study, proposer, TRIALS)
    assert candidate is not None
    add(study, proposer, candidate, 0.8)
    other = combination(study, proposer, TRIALS)
    assert other is not None and len(other.user_attrs[COMBINES]) == 2
    assert set(other.user_attrs[COMBINES]) != set(candidate.user_attrs[COMBINES])


def test_recipes_that_change_the_same_thing_do_not_go_together(proposer: Proposer) -> None:
    candidate = combination(
        study_of(proposer, {"DeepCache, interval 2": 0.1, "DeepCache, interval 3": 0.0}), proposer, TRIALS
    )
    assert candidate is not None
    assert sum(name.startswith("DeepCache") for name in candidate.user_attrs[COMBINES]) == 1


def test_pruned_recipes_count_with_the_pictures_they_made(proposer: Proposer) -> None:
    whole = combination(study_of(proposer, GOOD), proposer, TRIALS)
    assert whole is not None and combination(study_of(proposer, GOOD, pruned=True), proposer, TRIALS) == whole


def test_the_next_one_is_another_plan_and_then_there_are_no_more(proposer: Proposer) -> None:
    study = study_of(proposer, GOOD)
    plans = set()
    for loss in (0.3, 0.1):
        candidate = combination(study, proposer, TRIALS)
        assert candidate is not None
        proposal = proposer.propose(candidate.values)
        assert proposal is not None
        plans.add(proposer.plan(proposal.policy))
        add(study, proposer, candidate, loss)
    assert len(plans) == 2
    assert combination(study, proposer, TRIALS) is None


def test_nothing_goes_together_before_recipes_were_evaluated(proposer: Proposer) -> None:
    study = optuna.create_study()
    assert combination(study, proposer, TRIALS) is None
    study.enqueue_trial(dict(proposer.space.recipes[0].values), user_attrs={RECIPE: "fewer steps"})
    assert combination(study, proposer, TRIALS) is None


def test_combinations_stay_within_narrowed_ranges(proposer: Proposer) -> None:
    space = proposer.space.within({"guidance_stop": (4, 9)})
    narrow = proposer.restricted(proposer.limits, space=space)
    # Fewer steps, which all others are built upon, have guidance to the end.
    study, wide = study_of(proposer, {**GOOD, "half the steps at half size": 0.6}), {"DeepCache, interval 2"}
    candidate = combination(study, narrow, TRIALS)
    assert candidate is not None and 4 <= candidate.values["guidance_stop"] <= 9
    candidate = combination(study, proposer, TRIALS)
    assert candidate is not None and wide < set(candidate.user_attrs[COMBINES])


def test_a_combination_that_was_cut_off_is_still_one_when_it_is_tried_again(proposer: Proposer) -> None:
    study = study_of(proposer, GOOD)
    candidate = combination(study, proposer, TRIALS)
    assert candidate is not None
    trial = begin(study, candidate)
    put_back(study, trial.number)
    (queued,) = study.get_trials(states=(TrialState.WAITING,))
    assert queued.user_attrs[COMBINES] == candidate.user_attrs[COMBINES]
    assert FAILURE not in queued.user_attrs


def test_a_report_names_all_that_go_together() -> None:
    assert recipe_of({COMBINES: ["DeepCache, interval 2", "T-GATE"]}) == "DeepCache, interval 2 + T-GATE"
    assert recipe_of({RECIPE: "T-GATE"}) == "T-GATE"
    assert recipe_of({}) is None


def test_tpe_resembles_the_best_quarter() -> None:
    """With Optuna's tenth the best two would decide alone; here the next three outvote them."""
    ends: dict[str, BaseDistribution] = {"interval": IntDistribution(0, 100)}
    drawn = []
    for seed in range(20):
        study = optuna.create_study(sampler=sampler_for("tpe", seed, 20))
        for number in range(20):
            value = 90 if number < 2 else 10 if number < 5 else 50
            study.add_trial(create_trial(params={"interval": value}, distributions=dict(ends), value=float(number)))
        drawn.append(study.ask(ends).params["interval"])
    assert statistics.median(drawn) < 30
