"""One real search on the shipped model, interrupted and taken up again as a user would."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from autotune.policy.loading import load_policy
from autotune.study.trials import is_repetition
from tests.support.fake_search import TRIALS

from .conftest import Finished

SMALL = ["--images", "8", "--held-out-images", "8", "--out", "run"]
COMMAND = ["tune", "--budget", "40%", "--trials", str(TRIALS), "--timeout", "10m", *SMALL]


def finished_trials(database: Path) -> int:
    """Trials the study has finished so far; 0 while there is no study yet."""
    if not database.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5) as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE'").fetchone()
            return int(count)
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_interrupted_resumed_exported_and_not_mixed_up_with_another_search(
    in_process: Callable[..., Finished], tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "autotune.cli", *COMMAND]
    database = tmp_path / "run" / "study.db"

    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 240
    while finished_trials(database) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no trial finished in four minutes"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "repeat the same command to go on" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    kept = finished_trials(database)
    assert kept >= 2
    assert not (tmp_path / "run" / "policy.json").exists()

    resumed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert resumed.returncode in (0, 3), resumed.stderr
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{database}")
    trials = optuna.load_study(study_name=study.study_name, storage=f"sqlite:///{database}").get_trials()
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert len([trial for trial in complete if not is_repetition(trial)]) == TRIALS
    assert not [trial for trial in trials if trial.state is TrialState.RUNNING]

    policy = load_policy(tmp_path / "run" / "policy.json")
    assert policy.cost is not None
    assert 0.30 < policy.cost.relative <= 0.40
    finalists = json.loads((tmp_path / "run" / "finalists.json").read_text())
    assert (finalists["verdict"] == "better") == (resumed.returncode == 0)
    better = ("beats" in resumed.stdout) and ("Nothing found" not in resumed.stdout)
    assert better == (resumed.returncode == 0)
    for contender in finalists["contenders"][1:]:
        assert contender["cost"]["relative"] <= 0.40
    with Image.open(tmp_path / "run" / "comparison.png") as comparison:
        assert comparison.width > 3 * 64
    assert "full run" in resumed.stdout
    assert "fewer steps" in resumed.stdout

    exported = (tmp_path / "run" / "policy.json").read_bytes()
    other = in_process(*COMMAND, "--seed", "1")
    assert other.code == 2
    assert "seed" in other.errors
    assert (tmp_path / "run" / "policy.json").read_bytes() == exported
