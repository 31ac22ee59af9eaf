"""The tuner killed at any moment: the same command goes on, and nothing is lost or counted twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from autotune.policy import read_policy
from autotune.search.repetitions import PLAN
from autotune.study.heartbeat import SURPLUS, WORKER
from autotune.study.trials import FAILURE, RECIPE, attributes, evaluated, sqlite_url

from . import world

TRIALS = 16


def whole(url: str, trials: int = TRIALS, name: str = world.STUDY) -> list[FrozenTrial]:
    """All trials of the study in which exactly ``trials`` candidates have been evaluated."""
    study = optuna.load_study(study_name=name, storage=url)
    assert len(evaluated(study)) == trials
    counted = Counter(attributes(trial)[PLAN] for trial in evaluated(study))
    assert set(counted.values()) == {1}, "no candidate counts twice"
    everything = study.get_trials()
    assert {trial.state for trial in everything} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert [trial.number for trial in everything] == list(range(len(everything)))
    # What was cut off came again.
    ended = [trial for trial in everything if trial.state is not TrialState.FAIL]
    for trial in everything:
        if trial.state is TrialState.FAIL and WORKER in trial.user_attrs and SURPLUS not in trial.user_attrs:
            assert FAILURE not in trial.user_attrs
            asked = trial.system_attrs.get("fixed_params", {}) | trial.params
            again = [other for other in ended if asked.items() <= other.params.items()]
            assert again or "retry_history" in trial.system_attrs, trial
    return everything


@pytest.mark.slow
def test_killed_ten_times_at_random(process: Callable[..., BaseProcess], model: Path, tmp_path: Path) -> None:
    _kill_and_finish(process, model, tmp_path, kills=10, seed=0)


def test_killed_once(process: Callable[..., BaseProcess], model: Path, tmp_path: Path) -> None:
    _kill_and_finish(process, model, tmp_path, kills=1, seed=1)


def _kill_and_finish(
    process: Callable[..., BaseProcess], model: Path, tmp_path: Path, *, kills: int, seed: int
) -> None:
    folder = tmp_path / "run"
    moments = random.Random(seed)
    for _ in range(kills):
        tuner = process(world.tuner, model, folder, {"trials": TRIALS}, 0.1)
        tuner.join(moments.uniform(1, 4))
        tuner.kill()
        tuner.join()
    tuner = process(world.tuner, model, folder, {"trials": TRIALS}, 0.1)
    tuner.join(120)
    assert tuner.exitcode == 0
    recipes = {trial.user_attrs.get(RECIPE) for trial in whole(sqlite_url(folder / "study.db"))} - {None}
    assert len(recipes) >= 7, "none of the recipes is lost"
    assert read_policy(folder / "policy.json").provenance is not None
