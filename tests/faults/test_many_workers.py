"""Several workers on one PostgreSQL server: one dies, and the server itself goes away for a while."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from autotune.policy import read_policy
from autotune.study.heartbeat import WORKER
from autotune.study.storage import open_storage
from autotune.study.trials import FAILURE, evaluated
from studies.postgres import Server

from . import world
from .test_killed import whole

TRIALS = 30
SECONDS = 0.4


def trials_of(url: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name=world.STUDY, storage=url).get_trials()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to it"
        time.sleep(0.05)


@pytest.fixture
def started(
    process: Callable[..., BaseProcess], model: Path, tmp_path: Path, postgresql: Server
) -> tuple[BaseProcess, list[BaseProcess]]:
    """The tuner and two workers, each of which has had a part in a trial."""
    changes = {"trials": TRIALS, "storage": postgresql.url}
    tuner = process(world.tuner, model, tmp_path / "tuner", changes, SECONDS)

    def published() -> bool:
        names = optuna.get_all_study_names(open_storage(postgresql.url))
        return bool(names) and "trials" in optuna.load_study(study_name=names[0], storage=postgresql.url).user_attrs

    until(published)
    workers = [process(world.worker, tmp_path / name, postgresql.url, SECONDS) for name in ("one", "two")]
    pids = {each.pid for each in (tuner, *workers)}
    until(lambda: pids == {_pid(trial) for trial in trials_of(postgresql.url)} - {None})
    return tuner, workers


def _pid(trial: FrozenTrial) -> int | None:
    worker = trial.user_attrs.get(WORKER)
    return worker and int(worker.rpartition(":")[2])


def test_many_open_an_empty_database_at_once(postgresql: Server) -> None:
    server = sqlalchemy.create_engine(postgresql.url, isolation_level="AUTOCOMMIT")
    for name in ("first", "second", "third"):
        with server.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        url = server.url.set(database=name).render_as_string()
        together = threading.Barrier(4)

        def opened(_: int, url: str = url, together: threading.Barrier = together) -> int:
            together.wait()
            return len(open_storage(url).get_all_studies())

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(opened, range(4))) == [0] * 4
    server.dispose()


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_retried_once(
    started: tuple[BaseProcess, list[BaseProcess]], postgresql: Server, tmp_path: Path
) -> None:
    tuner, (victim, other) = started
    assert victim.pid is not None

    def caught() -> bool:
        """Stopped in the middle of a trial, not between two."""
        os.kill(victim.pid or 0, signal.SIGSTOP)
        time.sleep(0.05)
        mine = [trial for trial in trials_of(postgresql.url) if _pid(trial) == victim.pid]
        if mine and mine[-1].state is TrialState.RUNNING:
            return True
        os.kill(victim.pid or 0, signal.SIGCONT)
        return False

    until(caught)
    victim.kill()
    for each in (tuner, other):
        each.join(120)
        assert each.exitcode == 0
    everything = whole(postgresql.url, TRIALS)
    # Others may have been put back before they began, one too many as they were.
    (cut_off,) = [trial for trial in everything if trial.state is TrialState.FAIL and _pid(trial) == victim.pid]
    (again,) = [trial for trial in everything if trial.system_attrs.get("retry_history") == [cut_off.number]]
    assert again.state in (TrialState.COMPLETE, TrialState.PRUNED) and _pid(again) != victim.pid
    assert again.params.items() >= cut_off.params.items()
    assert read_policy(tmp_path / "tuner" / "policy.json").provenance is not None
    assert not (tmp_path / "two" / "policy.json").exists()


@pytest.mark.slow
def test_workers_wait_for_a_server_that_is_restarted(
    started: tuple[BaseProcess, list[BaseProcess]], postgresql: Server
) -> None:
    tuner, workers = started
    postgresql.stop()
    time.sleep(2)
    assert all(each.is_alive() for each in (tuner, *workers))
    postgresql.start()
    for each in (tuner, *workers):
        each.join(120)
        assert each.exitcode == 0
    whole(postgresql.url, TRIALS)
    study = optuna.load_study(study_name=world.STUDY, storage=postgresql.url)
    assert not [trial for trial in evaluated(study) if FAILURE in trial.user_attrs]
