"""All that this package takes of Optuna's private attributes, so that a release that moves one breaks one module.

Optuna's public interface reads a trial before every write, and writes a candidate's values one by one. With many
workers on one database that is most of what the database does (``studies.storage_overhead``).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, text


def id_of(trial: optuna.Trial | FrozenTrial) -> int:
    """The trial's number among all trials of its storage, which storages go by."""
    return trial._trial_id


def storage_of(study: optuna.Study) -> BaseStorage:
    """The storage that a study is kept in."""
    return study._storage


def study_attrs(study: optuna.Study) -> dict[str, Any]:
    """A study's system attributes, among which dashboards keep their notes."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_study_attr(study: optuna.Study, key: str, value: Any) -> None:
    """Write one of a study's system attributes."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def new_trial(study: optuna.Study, template: FrozenTrial) -> optuna.Trial:
    """Make a trial like ``template`` in one transaction."""
    return optuna.Trial(study, study._storage.create_new_trial(study._study_id, template))


def live_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """The trial that ``trial`` is a copy of, to be written to."""
    return optuna.Trial(study, trial._trial_id)


def set_state(
    study: optuna.Study, trial: optuna.Trial | FrozenTrial, state: TrialState, loss: float | None = None
) -> bool:
    """Write a trial's state without reading it first.

    Returns:
        Whether it was written: of several workers that set a queued trial running, one succeeds.
    """
    return study._storage.set_trial_state_values(trial._trial_id, state, None if loss is None else [loss])


def state_of(study: optuna.Study, trial: optuna.Trial) -> TrialState:
    """A trial's state in the storage, whoever wrote it."""
    return study._storage.get_trial(trial._trial_id).state


def set_user_attr(trial: optuna.Trial, name: str, value: Any) -> None:
    """Write a user attribute of a trial without a copy in the process."""
    trial.storage.set_trial_user_attr(trial._trial_id, name, value)


def set_param(trial: optuna.Trial, name: str, value: int, distribution: BaseDistribution) -> None:
    """Write a trial's parameter, which no sampler was asked for."""
    trial.storage.set_trial_param(trial._trial_id, name, value, distribution)


class TransactionalStorage(_CachedStorage):
    """Optuna's database storage with its cache, which is what a URL alone stands for."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)

    @property
    def engine(self) -> Engine:
        """The connections to the database."""
        engine: Engine = self._backend.engine
        return engine

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna's; of several workers that set one state at once, one succeeds on SQLite as well.

        Optuna locks the trial's row, reads its state and writes it. SQLite has no locks of rows, so that two workers
        who read at the same moment would both succeed: both would evaluate a queued trial, or queue a dead worker's.
        """
        session = self._backend.scoped_session()
        try:
            # A write that changes nothing begins the transaction in which Optuna reads, and keeps other writers out.
            session.execute(text("UPDATE trials SET state = state WHERE trial_id = :id"), {"id": trial_id})
            return super().set_trial_state_values(trial_id, state, values)
        finally:
            session.close()

    def cached(self, study_id: int, trial_id: int) -> FrozenTrial:
        """A copy of a trial as the cache has it."""
        _, number = self._trial_id_to_study_id_and_number[trial_id]
        return copy.deepcopy(self._studies[study_id].trials[number])
