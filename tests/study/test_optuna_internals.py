"""What is taken of Optuna's private attributes is there, and occurs in one module; a release that moves it is named."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

import autotune
import search_spaces
from autotune.study import optuna_internals as internals

# Of Optuna's classes, with those of its cache; ``self._storage`` of a class of our own is none of them.
PRIVATE = ("_trial_id", "_study_id", "_storage", "_backend", "_studies", "_trial_id_to_study_id_and_number")


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(storage=internals.TransactionalStorage(RDBStorage("sqlite://")))


@pytest.mark.parametrize("name", PRIVATE)
def test_this_release_has(study: optuna.Study, name: str) -> None:
    owners = (study, study.ask(), internals.storage_of(study))
    assert any(hasattr(owner, name) for owner in owners), (
        f"optuna {optuna.__version__} has no {name} any more; mend autotune/study/optuna_internals.py"
    )


def test_one_module_alone_takes_them() -> None:
    taken = re.compile(rf"(?<!self)\.({'|'.join(PRIVATE)})\b|import .*\b_[A-Z]")
    roots = (Path(autotune.__file__).parent, Path(search_spaces.__file__).parent)
    found = {
        f"{path.name}:{number}: {line.strip()}"
        for root in roots
        for path in root.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if taken.search(line) and path.name != "optuna_internals.py" and "optuna" in path.read_text()
    }
    assert not found


def test_a_trial_is_made_like_its_template(study: optuna.Study) -> None:
    trial = internals.new_trial(study, create_trial(state=TrialState.RUNNING, user_attrs={"recipe": "plain"}))
    assert internals.state_of(study, trial) is TrialState.RUNNING
    assert trial.user_attrs == {"recipe": "plain"}


def test_of_two_that_take_a_queued_trial_one_gets_it(study: optuna.Study) -> None:
    study.enqueue_trial({"steps": 3})
    (queued,) = study.get_trials()
    assert [internals.set_state(study, queued, TrialState.RUNNING) for _ in range(2)] == [True, False]


def test_what_is_written_is_read(study: optuna.Study) -> None:
    trial = study.ask()
    internals.set_user_attr(trial, "cost", 0.4)
    internals.set_param(trial, "steps", 3, IntDistribution(1, 9))
    internals.set_study_attr(study, "note", "words")
    internals.set_state(study, trial, TrialState.COMPLETE, 0.5)
    (told,) = study.get_trials()
    assert (told.user_attrs, told.params, told.value) == ({"cost": 0.4}, {"steps": 3}, 0.5)
    assert internals.study_attrs(study)["note"] == "words"


def test_the_cache_has_what_was_just_made(study: optuna.Study) -> None:
    storage = internals.storage_of(study)
    assert isinstance(storage, internals.TransactionalStorage)
    trial_id = storage.create_new_trial(study._study_id)
    assert internals.id_of(storage.cached(study._study_id, trial_id)) == trial_id
    assert storage.engine.dialect.name == "sqlite"
