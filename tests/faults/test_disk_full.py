"""A full disk stops the run with a sentence, and the same command goes on once there is room."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from autotune.core.errors import Unavailable
from autotune.study.trials import sqlite_url

from . import world
from .test_killed import whole

TRIALS = 16
CANNOT_WRITE = 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def tune_in_small_files(model: Path, folder: Path, changes: Mapping[str, Any], said: Path, most: int | None) -> None:
    """Tune where no file may have more than ``most`` bytes, and write down what is said."""
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        world.tuner(model, folder, changes, 0.0)
    except Unavailable as error:
        said.write_text(str(error))
        raise SystemExit(CANNOT_WRITE) from None


def test_no_room_for_pictures(
    process: Callable[..., BaseProcess], model: Path, small_disk: Path, tmp_path: Path
) -> None:
    """The study is elsewhere, as with a database server."""
    url, said = sqlite_url(tmp_path / "study.db"), tmp_path / "said"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(900_000))
    changes = {"trials": TRIALS, "storage": url}
    tuner = process(tune_in_small_files, model, small_disk / "run", changes, said, None)
    tuner.join(120)
    assert tuner.exitcode == CANNOT_WRITE
    assert "No space left on device" in said.read_text() and "repeat the same command" in said.read_text()
    trials = optuna.load_study(study_name=world.STUDY, storage=url).get_trials()
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    assert not (small_disk / "run" / "policy.json").exists()

    ballast.unlink()
    tuner = process(tune_in_small_files, model, small_disk / "run", changes, said, None)
    tuner.join(120)
    assert tuner.exitcode == 0
    whole(url, TRIALS)


def test_no_room_for_the_study(process: Callable[..., BaseProcess], model: Path, small_disk: Path) -> None:
    """Everything is on the disk that fills up, the study's own file included."""
    run, said, trials = small_disk / "run", small_disk.parent / "said", 20
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(550_000))
    tuner = process(tune_in_small_files, model, run, {"trials": trials}, said, None)
    tuner.join(120)
    assert tuner.exitcode == CANNOT_WRITE
    assert "full" in said.read_text() or "No space left" in said.read_text()
    ballast.unlink()
    tuner = process(tune_in_small_files, model, run, {"trials": trials}, said, None)
    tuner.join(120)
    assert tuner.exitcode == 0
    whole(sqlite_url(run / "study.db"), trials)


def test_files_may_not_grow(process: Callable[..., BaseProcess], model: Path, tmp_path: Path) -> None:
    """A quota, which needs no rights to set: the study's file meets it first."""
    run, said = tmp_path / "run", tmp_path / "said"
    empty = tmp_path / "empty.db"
    RDBStorage(sqlite_url(empty))
    tuner = process(tune_in_small_files, model, run, {"trials": TRIALS}, said, empty.stat().st_size + 20_000)
    tuner.join(120)
    assert tuner.exitcode == CANNOT_WRITE
    assert "cannot be" in said.read_text()
    tuner = process(tune_in_small_files, model, run, {"trials": TRIALS}, said, None)
    tuner.join(120)
    assert tuner.exitcode == 0
    whole(sqlite_url(run / "study.db"), TRIALS)
