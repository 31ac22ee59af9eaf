"""A search as it goes over days: stopped, joined by a worker, added to by hand, and taken up again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest

from autotune.search.trial_runner import TrialRunner
from autotune.study.trials import sqlite_url
from tests.conformance.levers import Lever, levers
from tests.conformance.tuner import Run, Said, command_line, search, space_of
from tests.support.folders import Brought, brought

STEPS = 6
STUDY = "conformance"
# Candidates that begin before somebody stops the tuner, and then the worker.
STOPPED_IN = 3


@dataclass(frozen=True)
class Campaign:
    """One search in four commands.

    Attributes:
        said: What each command said: the tuner's that was stopped, the worker's that was, the tuner's that ended.
        after: How many candidates were finished after the first two.
        levers: What its candidates were to try.
    """

    name: str
    brought: Brought
    run: Run
    said: tuple[Said, ...]
    after: tuple[dict[int, float], ...]
    levers: dict[str, Lever]


def conduct(name: str, folder: Path) -> Campaign:
    """Tune a family so that every lever of its space is tried."""
    model, run, offered = brought(name), Run(folder / "run"), levers(space_of(name, STEPS))
    trials = len(space_of(name, STEPS).recipes) + len(offered)
    tune = search(model, run.folder, "--budget", "60%", "--study-name", STUDY, "--trials", str(trials), steps=STEPS)
    worker = ["worker", "--storage", sqlite_url(run.folder / "study.db"), "--study-name", STUDY]
    worker += ["--out", str(run.folder), "--device", "cpu", "--quiet"]
    with stopped_in(STOPPED_IN):
        begun = command_line(*tune)
    after = [losses(run)]
    enqueue(run, offered)
    with stopped_in(STOPPED_IN):
        joined = command_line(*worker)
    after.append(losses(run))
    return Campaign(name, model, run, (begun, joined, command_line(*tune)), tuple(after), offered)


def enqueue(run: Run, offered: dict[str, Lever]) -> None:
    """Ask for a candidate for each lever, as anybody may with nothing but Optuna."""
    study = optuna.load_study(study_name=STUDY, storage=sqlite_url(run.folder / "study.db"))
    for lever in offered.values():
        study.enqueue_trial(dict(lever.knobs))


def losses(run: Run) -> dict[int, float]:
    """Of all candidates that are finished, by trial."""
    return {trial.number: trial.values[0] for trial in run.complete}


@contextmanager
def stopped_in(trial: int) -> Iterator[None]:
    """Ctrl-C when the ``trial``-th candidate begins of those that are made inside."""
    begun = 0
    original = TrialRunner.run

    def running(*arguments: Any, **options: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == trial:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrialRunner, "run", running)
            yield
    finally:
        signal.signal(signal.SIGINT, before)
