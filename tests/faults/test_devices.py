"""``postdiff tune --devices``: workers of its own on one study, which live and end with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import pytest

from autotune.cli import INTERRUPTED
from autotune.search.repetitions import PLAN
from autotune.study.heartbeat import WORKER
from autotune.study.storage import holds_studies, open_storage
from autotune.study.trials import CONFIG, RECIPE, attributes, evaluated, sqlite_url
from tests.support.fake_search import HELD_OUT, PROMPTS

from . import world
from .test_killed import whole
from .test_many_workers import until

ROOT = Path(__file__).parents[2]
TRIALS = 20
SECONDS = 0.1
SETTINGS = ["--scorer", "reading", "--steps", "10", "--images", "12", "--held-out-images", "12", "--timeout", "10m"]

Start = Callable[..., BaseProcess]


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    """A file that a worker makes with its first picture."""
    return tmp_path / "joined"


@pytest.fixture
def start(process: Callable[..., BaseProcess], tmp_path: Path, model: Path, joined: Path) -> Start:
    """Begin a search with the command; its pictures and its workers' are a formula."""
    folder = tmp_path / "made"
    folder.mkdir()
    for name, prompts in (("prompts", PROMPTS), ("held_out", HELD_OUT)):
        (folder / f"{name}.txt").write_text("\n".join(prompts))
    # Every interpreter that is started runs it first.
    entering = ["from pathlib import Path", "from tests.faults import world"]
    entering += [f"world.joining({SECONDS}, Path({str(joined)!r}))"]
    (folder / "sitecustomize.py").write_text("\n".join(entering))

    def begin(*more: str) -> BaseProcess:
        joined.unlink(missing_ok=True)
        command = ["tune", "--budget", "40%", "--model", str(model), "--study-name", world.STUDY, "--out", "run"]
        command += ["--prompts", str(folder / "prompts.txt"), "--trials", str(TRIALS), *SETTINGS, *more]
        path = f"{folder}{os.pathsep}{ROOT}"
        return process(world.command, command, tmp_path, SECONDS, joined, path)

    return begin


def begun(url: str) -> bool:
    """Whether the search has a trial."""
    if not holds_studies(url):
        return False
    storage = open_storage(url)
    if world.STUDY not in optuna.get_all_study_names(storage):
        return False
    return bool(optuna.load_study(study_name=world.STUDY, storage=storage).get_trials(deepcopy=False))


def workers_of(url: str) -> set[int]:
    """The processes that had a part in trials that have ended."""
    if not begun(url):
        return set()
    study = optuna.load_study(study_name=world.STUDY, storage=open_storage(url))
    return {int(trial.user_attrs[WORKER].rpartition(":")[2]) for trial in evaluated(study)}


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_one_ctrl_c_ends_all_a_dead_worker_is_reported_and_the_study_is_that_of_workers_by_hand(
    start: Start, process: Callable[..., BaseProcess], model: Path, tmp_path: Path
) -> None:
    url = sqlite_url(tmp_path / "run" / "study.db")
    search = start("--devices", "cpu,cpu")
    until(lambda: len(workers_of(url)) == 2, 120)
    both = workers_of(url)
    assert search.pid in both
    os.kill(search.pid or 0, signal.SIGINT)
    search.join(60)
    errors = (tmp_path / "errors").read_text()
    assert search.exitcode == INTERRUPTED
    assert "repeat the same command to go on" in errors.splitlines()[-1] and "Traceback" not in errors
    assert not any(map(alive, both)), "no process is left"
    kept = len(evaluated(optuna.load_study(study_name=world.STUDY, storage=url)))

    search = start("--devices", "cpu,cpu")
    until(lambda: len(workers_of(url) - both) == 2, 120)
    (second,) = workers_of(url) - both - {search.pid or 0}
    os.kill(second, signal.SIGKILL)
    search.join(120)
    errors = (tmp_path / "errors").read_text()
    assert search.exitcode in (0, 3), errors
    assert f"resuming: {kept} of {TRIALS}" in errors
    assert "worker 2 on cpu was ended by SIGKILL; others retry its trial" in errors
    # One progress for all.
    assert f"{TRIALS}/{TRIALS}  " in errors and f":{second}" in errors
    whole(url, TRIALS)
    assert "policy.json" in (tmp_path / "output").read_text() and (tmp_path / "run" / "policy.json").is_file()

    by_hand = sqlite_url(tmp_path / "by-hand.db")
    changes = {"trials": TRIALS, "storage": by_hand, "held_out": None}
    joined = tmp_path / "joined-by-hand"
    # Nobody dies here, and on a busy machine the living are not to be taken for dead.
    tuner = process(world.tuner, model, tmp_path / "tuner", changes, SECONDS, joined, 60)
    until(lambda: begun(by_hand), 120)
    worker = process(world.worker, tmp_path / "worker", by_hand, SECONDS, joined, 60)
    for each in (tuner, worker):
        each.join(120)
        assert each.exitcode == 0
    ours, theirs = (optuna.load_study(study_name=world.STUDY, storage=each) for each in (url, by_hand))
    assert len(workers_of(by_hand)) == 2
    assert ours.user_attrs[CONFIG] == theirs.user_attrs[CONFIG]
    recipes, losses = zip(*(_found(each) for each in (ours, theirs)), strict=True)
    assert recipes[0] == recipes[1]
    common = losses[0].keys() & losses[1].keys()
    assert common and all(losses[0][plan] == losses[1][plan] for plan in common)


def _found(study: optuna.Study) -> tuple[set[str], dict[str, float]]:
    """The known recipes of a study, and the loss of every plan of which all pictures were made."""
    recipes = {trial.user_attrs[RECIPE] for trial in study.get_trials() if RECIPE in trial.user_attrs}
    whole_ones = [trial for trial in evaluated(study) if trial.state is optuna.trial.TrialState.COMPLETE]
    return recipes, {attributes(trial)[PLAN]: trial.values[0] for trial in whole_ones}


@pytest.mark.slow
def test_workers_end_when_the_tuner_is_killed(start: Start, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "run" / "study.db")
    search = start("--devices", "cpu,cpu", "--quiet")
    until(lambda: len(workers_of(url)) == 2, 120)
    (worker,) = workers_of(url) - {search.pid or 0}
    search.kill()
    until(lambda: not alive(worker), 30)
