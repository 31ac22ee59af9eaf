"""One budget's search, as every worker runs it."""

from __future__ import annotations

from pathlib import Path

import optuna

from autotune.evaluation.evaluator import Evaluator
from autotune.search.local_search import Refiner
from autotune.search.loop import SearchProgress, search
from autotune.search.trial_runner import TrialRunner
from autotune.workflows.setup import Setup


def explore(
    setup: Setup,
    study: optuna.Study,
    evaluator: Evaluator,
    folder: Path,
    trials: int,
    timeout: float,
    seed: int,
    progress: SearchProgress,
) -> None:
    """One budget's search, by the tuner or by any other worker; their seeds differ, so that their candidates do."""
    search(
        study,
        TrialRunner(
            study,
            setup.proposer,
            evaluator,
            folder,
            prefixes=setup.maker.prefixes,
            flops=setup.pricer.first_calls_flops,
            early_stopping=setup.configuration.early_stopping,
        ),
        Refiner(setup.proposer, seed, setup.sensitivity),
        sampler=setup.configuration.sampler,
        trials=trials,
        timeout=timeout,
        seed=seed,
        progress=progress,
        pictures=len(setup.tuning.rows),
    )
