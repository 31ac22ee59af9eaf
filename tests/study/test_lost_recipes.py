"""Recipes whose workers died before this process began get another chance in it."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
import pytest
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from autotune.study.trials import FAILURE, RECIPE, requeue_lost_recipes, waiting

ASKED = {"scale": 3, "depth": 0}
DISTRIBUTIONS: dict[str, BaseDistribution] = {name: IntDistribution(0, 9) for name in ASKED}


def study_of(*trials: tuple[TrialState, Mapping[str, str]]) -> optuna.Study:
    """Trials of the same knobs in these states, with these attributes."""
    study = optuna.create_study()
    for state, attributes in trials:
        study.add_trial(
            create_trial(
                state=state,
                value=0.5 if state is TrialState.COMPLETE else None,
                params=ASKED,
                distributions=DISTRIBUTIONS,
                user_attrs=dict(attributes),
                system_attrs={"fixed_params": ASKED},
            )
        )
    return study


NAMED = {RECIPE: "DeepCache"}
FAILED, RUNNING, COMPLETE = TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE


def test_one_that_was_cut_off_twice_comes_again() -> None:
    study = study_of((FAILED, NAMED), (FAILED, NAMED))
    assert requeue_lost_recipes(study, {1}) == frozenset()
    (again,) = waiting(study)
    assert again.system_attrs["fixed_params"] == ASKED and again.user_attrs[RECIPE] == "DeepCache"
    requeue_lost_recipes(study, {1})
    assert len(waiting(study)) == 1, "and once"


@pytest.mark.parametrize(
    "trials",
    [
        [(FAILED, NAMED), (TrialState.WAITING, NAMED)],
        [(FAILED, NAMED), (COMPLETE, NAMED)],
        [(FAILED, NAMED | {FAILURE: "it breaks"})],
        [(FAILED, {})],
    ],
    ids=["it is queued", "it was evaluated", "it failed for a reason", "it is no recipe"],
)
def test_no_other_does(trials: list[tuple[TrialState, Mapping[str, str]]]) -> None:
    study = study_of(*trials)
    before = len(study.get_trials())
    assert requeue_lost_recipes(study, {0}) == frozenset()
    assert len(study.get_trials()) == before


def test_what_died_in_this_process_lifetime_is_the_retrys_matter() -> None:
    study = study_of((FAILED, NAMED))
    requeue_lost_recipes(study, set())
    assert not waiting(study)


def test_what_still_runs_is_watched() -> None:
    assert requeue_lost_recipes(study_of((RUNNING, NAMED), (COMPLETE, NAMED)), {0, 1}) == {0}
