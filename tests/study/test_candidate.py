"""Candidates drawn in memory are those that the study itself would have drawn."""

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

from autotune.search.samplers import NAMES, sampler_for
from autotune.study.candidate import Candidate, draw
from autotune.study.storage import open_storage
from autotune.study.trials import begin, sqlite_url

KNOBS = {"interval": IntDistribution(1, 9), "depth": IntDistribution(0, 3), "skew": IntDistribution(-3, 3)}


def knobs(trial: optuna.Trial) -> Mapping[str, int]:
    return {name: trial.suggest_int(name, ends.low, ends.high) for name, ends in KNOBS.items()}


@pytest.fixture
def study() -> optuna.Study:
    """Two dozen trials, the last of which somebody works on."""
    study = optuna.create_study()
    chance = random.Random(0)
    for _ in range(23):
        params = {name: chance.randint(ends.low, ends.high) for name, ends in KNOBS.items()}
        study.add_trial(create_trial(params=params, distributions=dict(KNOBS), value=float(sum(params.values()))))
    study.enqueue_trial({"interval": 1, "depth": 1, "skew": 1})
    knobs(study.ask())
    return study


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_draft_is_what_the_study_would_have_drawn(name: str, study: optuna.Study) -> None:
    candidate = draw(sampler_for(name, 0, 23), knobs, study.get_trials(deepcopy=False))
    assert len(study.trials) == 24, "no trial is made"
    study.sampler = sampler_for(name, 0, 23)
    assert candidate.values == knobs(study.ask())
    assert candidate.system_attrs == study.trials[-1].system_attrs, "what samplers note of it"


def test_waiting_trials_are_left_to_who_takes_them(study: optuna.Study) -> None:
    study.enqueue_trial({"interval": 9, "depth": 3, "skew": 3})
    candidates = {tuple(draw(sampler_for("random", seed, 0), knobs, study.trials).values.values()) for seed in range(4)}
    assert len(candidates) == 4


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
