"""Run directories as searches leave them: one finished, one of 500 trials with large pictures, one cut off."""

from __future__ import annotations

import io
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image

from autotune.report.run import STUDY
from autotune.results.gallery import FOLDER
from autotune.workflows.tune import TuneResult
from tests.support.fake_search import explained, pipe, whole

__all__ = ["explained", "pipe", "whole"]

TRIALS = 500
# Enough for pages to be of the size that as many different pictures would make.
_DIFFERENT = 4


def url(folder: Path) -> str:
    return f"sqlite:///{folder / STUDY}"


@pytest.fixture
def finished(whole: TuneResult, tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed at will."""
    folder = tmp_path / "run"
    shutil.copytree(whole.run_dir, folder)
    return folder


@pytest.fixture
def unfinished(finished: Path) -> Path:
    """The same before its last round: trials and grids, but nothing of the last round."""
    for name in ("finalists.json", "policy.json"):
        (finished / name).unlink()
    shutil.rmtree(finished / FOLDER)
    return finished


@pytest.fixture(scope="session")
def large(whole: TuneResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 500 trials, some of which failed or repeat others, and pictures of 1024 pixels a side."""
    folder = tmp_path_factory.mktemp("large") / "run"
    shutil.copytree(whole.run_dir, folder)
    study = optuna.load_study(study_name="study", storage=url(folder))
    done = study.get_trials(deepcopy=False)
    study.add_trials([_another(done[number % len(done)], number) for number in range(len(done), TRIALS)])
    drawn = [_picture(number) for number in range(_DIFFERENT)]
    for number, path in enumerate(sorted((folder / FOLDER).glob("*.webp"))):
        path.write_bytes(drawn[number % _DIFFERENT])
    return folder


def _another(trial: optuna.trial.FrozenTrial, number: int) -> optuna.trial.FrozenTrial:
    chance = random.Random(number)
    given: dict[str, Any] = {key: value for key, value in trial.user_attrs.items() if key != "recipe"}
    params = {
        name: chance.randint(space.low, space.high)
        for name, space in trial.distributions.items()
        if isinstance(space, IntDistribution)
    }
    known: dict[str, Any] = {"params": params, "distributions": trial.distributions}
    if number % 50 == 0:
        return create_trial(state=TrialState.FAIL, user_attrs=given | {"failure": "no memory left"}, **known)
    loss = 0.05 * sum(params.values()) / len(params) + chance.gauss(0, 0.05)
    results = given["results"] | {"loss": loss, "loss_low": loss - 0.04, "loss_high": loss + 0.05}
    given["results"] = results if number % 20 else results | {"duplicate_of": trial.number}
    given["relative_cost"] = 0.4 - 0.1 * chance.random() ** 3
    return create_trial(value=loss, user_attrs=given, **known)


def _picture(seed: int) -> bytes:
    """WebP, smooth with some grain, which compresses about as well as a photograph."""
    numbers = np.random.default_rng(seed)
    coarse = Image.fromarray(numbers.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize((1024, 1024), 3)
    grain = numbers.normal(0, 4, (1024, 1024, 1))
    file = io.BytesIO()
    Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(file, format="WEBP", quality=90)
    return file.getvalue()
