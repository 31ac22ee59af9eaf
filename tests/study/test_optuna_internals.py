"""What is taken of Optuna's private attributes is there, and occurs in one module; a release that moves it is named."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

import autotune
import search_spaces
from autotune.study import optuna_internals as internals
from autotune.study.storage import open_storage
from autotune.study.trials import sqlite_url

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
    roots = [Path(str(package.__file__)).parent for package in (autotune, search_spaces)]
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


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.FAIL])
def test_of_two_that_do_so_at_the_same_moment_one_gets_it(tmp_path: Path, state: TrialState) -> None:
    url, queued, together = sqlite_url(tmp_path / "study.db"), 20, Barrier(2, timeout=60)
    study = optuna.create_study(storage=open_storage(url), study_name="study")
    for number in range(queued):
        study.enqueue_trial({"steps": number})
    waiting = study.get_trials()

    def take(worker: int) -> list[int]:
        mine = optuna.load_study(storage=open_storage(url), study_name="study")
        taken = []
        for trial in waiting:
            together.wait()
            try:
                if internals.set_state(mine, trial, state):
                    taken.append(trial.number)
            except UpdateFinishedTrialError:
                continue
        return taken

    with ThreadPoolExecutor(2) as workers:
        first, second = workers.map(take, range(2))
    assert sorted(first + second) == list(range(queued))


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
