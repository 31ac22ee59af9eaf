from __future__ import annotations

import optuna
import pytest
from optuna.trial import create_trial

from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, SchedulerChoice
from autotune.results.candidates import best_fewer_steps, best_trials
from autotune.results.finalists import EvaluatedPolicy
from autotune.study.trials import DESCRIPTION, POLICY, REFINES


def study_of(name: str, *trials: tuple[float, int, int | None]) -> optuna.Study:
    """Of trials with a loss, as many steps as tell them apart, and the trial that each was derived from."""
    study = optuna.create_study(study_name=name)
    for loss, steps, before in trials:
        given = {DESCRIPTION: {POLICY: Policy(steps=steps).to_dict()}}
        study.add_trial(create_trial(value=loss, user_attrs=given if before is None else given | {REFINES: before}))
    return study


def test_what_local_search_derived_from_one_candidate_sends_its_best() -> None:
    study = study_of("a", (0.3, 5, None), (0.2, 6, 0), (0.1, 7, 1), (0.4, 8, None), (0.5, 9, None))
    assert [each.trial for each in best_trials([study], 2)] == [2, 3]
    assert [each.trial for each in best_trials([study], 3)] == [2, 3, 4]


def test_its_others_follow_where_there_is_nobody_else() -> None:
    study = study_of("a", (0.3, 5, None), (0.2, 6, 0), (0.1, 7, 1), (0.4, 8, None))
    assert [each.trial for each in best_trials([study], 3)] == [2, 1, 3]


def test_trials_of_two_studies_are_no_relatives() -> None:
    one = study_of("a", (0.3, 5, None), (0.2, 6, 0), (0.5, 9, None))
    other = study_of("b", (0.25, 7, None), (0.24, 8, 0))
    assert [(each.study, each.trial) for each in best_trials([one, other], 2)] == [("a", 1), ("b", 1)]


def test_candidates_are_within_the_budget_and_none_is_there_twice() -> None:
    one, other = study_of("a", (0.1, 5, None), (0.2, 6, None)), study_of("b", (0.3, 6, None), (0.4, 20, None))
    found = best_trials(
        [one, other], 3, exclude=lambda policy: policy.steps == 5, within=lambda policy: policy.steps < 20
    )
    assert [(each.study, each.trial) for each in found] == [("a", 1)]


PLAIN = EvaluatedPolicy(None, 0, Policy(steps=8))
SOLVER = Policy(steps=8, scheduler=SchedulerChoice(name="DDIMScheduler", config={}))
LESS_THAN_STEPS = [
    Policy(steps=8, guidance=Guidance(stop_step=5)),
    Policy(steps=8, resolution=(ResolutionStage(scale=0.5, until_step=3),)),
    Policy(steps=8, cache=(CacheRule(units=("mid_block",), compute_steps=(0, 4)),)),
]


def study_with(*policies: tuple[float, Policy]) -> optuna.Study:
    study = optuna.create_study(study_name="a")
    for loss, policy in policies:
        study.add_trial(create_trial(value=loss, user_attrs={DESCRIPTION: {POLICY: policy.to_dict()}}))
    return study


@pytest.mark.parametrize("policy", [SOLVER, Policy(steps=9, timesteps="trailing"), Policy(steps=7)])
def test_the_strongest_fewer_steps_of_the_search_compete(policy: Policy) -> None:
    study = study_with((0.3, PLAIN.policy), (0.2, policy), (0.25, SOLVER))
    assert best_fewer_steps([study], PLAIN) == EvaluatedPolicy("a", 1, policy)


@pytest.mark.parametrize("policy", LESS_THAN_STEPS)
def test_what_leaves_anything_out_of_a_step_is_no_fewer_steps(policy: Policy) -> None:
    assert best_fewer_steps([study_with((0.3, PLAIN.policy), (0.2, policy))], PLAIN) == PLAIN


def test_plain_steps_compete_where_nothing_is_stronger_or_within_the_budget() -> None:
    assert best_fewer_steps([study_with((0.3, SOLVER), (0.2, PLAIN.policy))], PLAIN) == PLAIN
    assert best_fewer_steps([study_with((0.2, SOLVER))], PLAIN, within=lambda policy: policy.steps < 8) == PLAIN
    assert best_fewer_steps([], PLAIN) == PLAIN
