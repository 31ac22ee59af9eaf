"""Which trials are being worked on, by whom, and what becomes of those whose worker died."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from autotune.core.errors import RunFailed, Unavailable, out_of_space, summary_of
from autotune.study.optuna_internals import id_of, state_of, storage_of
from autotune.study.storage import PatientStorage
from autotune.study.trials import FAILURE, RECIPE, Trials, is_repetition, put_back

_LOG = logging.getLogger(__name__)

WORKER = "worker"
"""Attribute of a trial: host and process that worked on it."""

SURPLUS = "not_needed"
"""Attribute of a trial that others, begun at the same moment, made one too many."""

CLOSED = "closed"
"""Attribute of a study in which no further candidate begins."""


@contextmanager
def heartbeat(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """Work on a trial inside of the block: meanwhile it gives signs of life, so that nobody else takes it.

    Whatever ends the block early (Ctrl-C, a full disk, a fault) puts the trial back into the queue. Should others have
    given it to another worker, because no sign of life reached them, what this one finds is dropped.
    """
    try:
        with _beating(study, id_of(trial)):
            if WORKER not in trial.user_attrs:
                trial.set_user_attr(WORKER, this_worker())
            yield
    except BaseException as error:
        if not _left(study, trial, error):
            raise
        _LOG.warning("trial %d was given to another worker while this one was not heard of; it goes on", trial.number)


class Watch:
    """Looks every now and then for trials whose worker has not given a sign of life for long."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._looked = -float("inf")
        self._silent: set[int] | None = None

    def retry_abandoned(self) -> None:
        """Fail such trials, and queue each once more, unless all was well a moment ago."""
        storage = storage_of(self._study)
        if not isinstance(storage, PatientStorage) or not storage.heard_all:
            return
        if time.monotonic() - self._looked < storage.interval / 2:
            return
        self._looked = time.monotonic()
        # A worker that died before its first sign of life would never be missed: the silence counts from now on.
        silent = storage.silent([id_of(trial) for trial in running(self._study)])
        for trial_id in silent if self._silent is None else silent & self._silent:
            storage.record_heartbeat(trial_id)
        self._silent = silent
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(self._study)


def running(study: Trials) -> list[FrozenTrial]:
    """Trials that somebody works on, or did when he died."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def surplus(study: optuna.Study, number: int, trials: int) -> bool:
    """Whether others, who asked for a trial at the same moment, already work on all that are left of ``trials``.

    The trials' numbers decide between them.
    """
    everything = study.get_trials(deepcopy=False)
    if any(each.number == number and RECIPE in each.user_attrs for each in everything):
        return False
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    counted = [
        each
        for each in everything
        if (each.state is TrialState.RUNNING and each.number < number)
        or ((each.state in ended or FAILURE in each.user_attrs) and not is_repetition(each))
    ]
    return len(counted) >= trials


def close(study: optuna.Study, closed: bool = True) -> None:
    """Let no further candidate begin, on any machine; or let them begin again."""
    if study.user_attrs.get(CLOSED) != closed:
        study.set_user_attr(CLOSED, closed)


def has_begun(study: optuna.Study) -> bool:
    """Whether the tuner has begun with the study: its known recipes are queued."""
    return study.user_attrs.get(CLOSED) is not None


def await_tuner(study: optuna.Study) -> None:
    """Have workers that join now wait until the tuner begins with the study, which it closed in an earlier run."""
    if has_begun(study):
        study.set_user_attr(CLOSED, None)


def is_closed(study: optuna.Study) -> bool:
    return bool(study.user_attrs.get(CLOSED, False))


def this_worker() -> str:
    """Host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def concerns_all(error: BaseException) -> bool:
    """Whether an error in a trial is of a kind that is none of the candidate's: the next one would meet it as well."""
    return isinstance(error, Unavailable | RunFailed | UpdateFinishedTrialError) or out_of_space(error)


@contextmanager
def _beating(study: optuna.Study, trial_id: int) -> Iterator[None]:
    """Signs of life of a trial, until the block ends."""
    storage = storage_of(study)
    if not isinstance(storage, PatientStorage):
        yield
        return
    seconds = storage.interval
    ended = threading.Event()

    def beat(storage: PatientStorage) -> None:
        # None of those who look for silent trials takes one as young as this.
        while not ended.wait(seconds):
            try:
                storage.record_heartbeat(trial_id)
            except StorageInternalError as error:
                # The next one may get through, and nobody takes the trial before the database was back for a while.
                storage.was_away()
                _LOG.debug("no sign of life of trial %d: %s", trial_id, error)

    thread = threading.Thread(target=beat, args=(storage,), name=f"signs of life of trial {trial_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _left(study: optuna.Study, trial: optuna.Trial, error: BaseException) -> bool:
    """Put back a trial that ``error`` cut off, unless others have failed it meanwhile; returns whether they have."""
    try:
        if isinstance(error, UpdateFinishedTrialError | ValueError) and _ended_elsewhere(study, trial):
            return True
        put_back(study, trial.number)
    except Exception as trouble:  # The storage may be what is broken: what is to be said is the error itself.
        _LOG.debug("trial %d is left to others: %s", trial.number, summary_of(trouble), exc_info=True)
    return False


def _ended_elsewhere(study: optuna.Study, trial: optuna.Trial) -> bool:
    """Whether a trial that this worker has not told has ended all the same."""
    return state_of(study, trial) is TrialState.FAIL
