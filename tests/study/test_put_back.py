"""A trial that was cut off comes again in its old place, however often that happens."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from autotune.study.heartbeat import heartbeat
from autotune.study.storage import open_storage
from autotune.study.trials import RECIPE, claim, enqueue_recipes, sqlite_url, waiting


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    study = optuna.create_study(storage=open_storage(sqlite_url(tmp_path / "study.db")))
    enqueue_recipes(study, [(name, {"interval": number}) for number, name in enumerate("abc", 1)])
    return study


def recipes(study: optuna.Study) -> str:
    return "".join(trial.user_attrs[RECIPE] for trial in waiting(study))


@pytest.mark.parametrize("error", [RuntimeError(), ValueError(), SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_whatever_cuts_it_off(study: optuna.Study, error: BaseException) -> None:
    for _ in range(2):
        claimed = claim(study, waiting(study))
        assert claimed is not None
        trial, values = claimed
        assert values == {"interval": 1}
        with pytest.raises(type(error)), heartbeat(study, trial):
            trial.suggest_int("interval", 1, 9)
            raise error
        assert TrialState.RUNNING not in {each.state for each in study.trials}
        assert recipes(study) == "abc"


def test_what_is_done_first_is_not_done_again(study: optuna.Study) -> None:
    claimed = claim(study, waiting(study))
    assert claimed is not None
    with pytest.raises(RuntimeError), heartbeat(study, claimed[0]):
        study.tell(claimed[0].number, 1.0)
        raise RuntimeError
    assert recipes(study) == "bc" and study.trials[0].state is TrialState.COMPLETE


def test_an_error_is_not_hidden_by_a_storage_that_is_broken_too(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise TypeError("row")

    claimed = claim(study, waiting(study))
    assert claimed is not None
    monkeypatch.setattr("autotune.study.heartbeat.put_back", broken)
    with pytest.raises(RuntimeError, match="first"), heartbeat(study, claimed[0]):
        raise RuntimeError("first")
