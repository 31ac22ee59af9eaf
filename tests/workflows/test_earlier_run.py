"""A run of the release before the rooms, of the shipped model, is read, reported, joined and resumed by this one.

``earlier_run`` holds what ``postdiff`` with :data:`COMMAND` left, less what can be made again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest

import autotune
from autotune.cli import run
from autotune.report.run import read_run
from autotune.study.trials import sqlite_url
from autotune.workflows.worker import studies_of
from search_spaces.earlier import PLAIN_OF_LATER

COMMAND = [
    *("tune", "--budget", "40%", "--images", "8", "--held-out-images", "8", "--batch-size", "8", "--steps", "8"),
    *("--weight-fd", "0", "--seed", "5", "--timeout", "10m", "--device", "cpu", "--quiet"),
]
STUDY = "emoji-unet-40pct"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).with_name("earlier_run"), tmp_path / "run"))


def trials_in(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=STUDY, storage=sqlite_url(folder / "study.db")).get_trials(deepcopy=False)


def test_its_policy_is_read_and_runs(folder: Path) -> None:
    policy = autotune.load_policy(folder / "policy.json")
    assert policy.id == "s3"
    assert policy.cost is not None
    assert autotune.price(autotune.demo_pipeline(), policy).flops == policy.cost.flops


def test_it_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(folder)]) == 0
    assert (folder / "report.html").stat().st_size > 100_000
    assert len(read_run(folder).candidates) == len(trials_in(folder)) == 12


def test_workers_join_it(folder: Path) -> None:
    (joined,) = studies_of(sqlite_url(folder / "study.db"), STUDY)
    assert joined.manifest.options().images == 8


def test_the_same_command_resumes_it(folder: Path) -> None:
    before = [(trial.number, trial.params, trial.values) for trial in trials_in(folder)]
    assert run([*COMMAND, "--trials", "13", "--out", str(folder)]) in (0, 3)
    after = [(trial.number, trial.params, trial.values) for trial in trials_in(folder)]
    assert after[: len(before)] == before
    assert len(after) > len(before)


def test_what_it_had_queued_is_run_as_it_was_meant(folder: Path) -> None:
    study = optuna.load_study(study_name=STUDY, storage=sqlite_url(folder / "study.db"))
    queued = {**trials_in(folder)[3].params, "warm_up": 2}
    assert not queued.keys() & PLAIN_OF_LATER.keys()
    study.enqueue_trial(queued)
    assert run([*COMMAND, "--trials", "13", "--out", str(folder)]) in (0, 3)
    (trial,) = (each for each in trials_in(folder) if queued.items() <= each.params.items())
    assert trial.params == queued | PLAIN_OF_LATER and trial.values
