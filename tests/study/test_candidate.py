"""Candidates drawn in memory are those that a study would have drawn that was asked for switches and knobs."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from autotune.policy import Policy
from autotune.search.samplers import CONDITIONAL, NAMES, sampler_for
from autotune.study.candidate import Candidate, draw
from autotune.study.storage import open_storage
from autotune.study.trials import begin, sqlite_url
from search_spaces import Knob, Lever, Recipe, SearchSpace


class Space(SearchSpace):
    """Two levers."""

    knobs = (Knob("interval", 1, 9, ""), Knob("depth", 0, 3, ""), Knob("skew", -3, 3, ""))
    recipes = (Recipe("fewer steps", {"interval": 1, "depth": 0, "skew": 0}),)
    levers = (Lever("reuse", ("interval", "depth"), essential=("interval", "depth")), Lever("skewed", ("skew",)))

    def policy(self, values: Mapping[str, int], steps: int) -> Policy:
        raise NotImplementedError


SPACE = Space()
ENDS = {knob.name: IntDistribution(knob.low, knob.high) for knob in SPACE.knobs}


@pytest.fixture
def study() -> optuna.Study:
    """Two dozen trials, the last of which somebody works on."""
    study = optuna.create_study()
    chance = random.Random(0)
    for _ in range(23):
        params = SPACE.drawn(lambda _, low, high: chance.randint(low, high))
        study.add_trial(create_trial(params=params, distributions=dict(ENDS), value=float(sum(params.values()))))
    study.enqueue_trial({"interval": 2, "depth": 1, "skew": 1})
    SPACE.values_of(study.ask())
    return study


def as_asked(study: optuna.Study, *, conditional: bool) -> optuna.Study:
    """The same trials in a study that was asked for switches."""
    other = optuna.create_study()
    for trial in study.trials[:-1]:
        answers = SPACE.asked(trial.params, conditional=conditional)
        other.add_trial(
            create_trial(
                params={name: value for name, (value, *_) in answers.items()},
                distributions={name: IntDistribution(low, high) for name, (_, low, high) in answers.items()},
                value=trial.value,
            )
        )
    answers = SPACE.asked(study.trials[-1].params, conditional=conditional)
    other.enqueue_trial({name: value for name, (value, *_) in answers.items()})
    SPACE.drawn(other.ask().suggest_int, conditional=conditional)
    return other


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_candidate_is_what_a_study_of_switches_would_have_drawn(name: str, study: optuna.Study) -> None:
    conditional = name in CONDITIONAL
    candidate = draw(sampler_for(name, 0, 23), SPACE, study.get_trials(deepcopy=False), conditional=conditional)
    assert len(study.trials) == 24, "no trial is made"
    other = as_asked(study, conditional=conditional)
    other.sampler = sampler_for(name, 0, 23)
    assert candidate.values == SPACE.drawn(other.ask().suggest_int, conditional=conditional)
    assert candidate.system_attrs == other.trials[-1].system_attrs, "what samplers note of it"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_begins_with_each_lever_off_half_of_the_time(name: str) -> None:
    samplers = [sampler_for(name, seed, 0) for seed in range(100)]
    drawn = [draw(sampler, SPACE, [], conditional=name in CONDITIONAL) for sampler in samplers]
    for off in (("interval", 1), ("depth", 0)), (("skew", 0),):
        assert 35 <= sum(all(each.values[knob] == value for knob, value in off) for each in drawn) <= 75


def test_waiting_trials_are_left_to_who_takes_them(study: optuna.Study) -> None:
    study.enqueue_trial({"interval": 9, "depth": 3, "skew": 3})
    found = (draw(sampler_for("random", seed, 0), SPACE, study.trials, conditional=True) for seed in range(8))
    assert len({tuple(candidate.values.values()) for candidate in found}) > 2


def test_a_draft_becomes_a_trial_in_one_transaction(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(sqlite_url(tmp_path / "study.db")))
    commits: list[object] = []
    sqlalchemy.event.listen(study._storage._backend.engine, "commit", commits.append)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trial = begin(study, Candidate({"interval": 3}, {"policy_id": "s4", "relative_cost": 0.4}, {"noted": [1]}))
    assert len(commits) == 1
    (read,) = study.get_trials()
    assert trial.number == read.number == 0 and read.state is TrialState.RUNNING
    assert trial.user_attrs == read.user_attrs == {"policy_id": "s4", "relative_cost": 0.4}
    assert read.system_attrs == {"fixed_params": {"interval": 3}, "noted": [1]}
