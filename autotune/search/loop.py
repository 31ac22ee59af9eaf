"""The search itself: known recipes, then the sampler's candidates, then neighbours of the best one."""

from __future__ import annotations

import time
from itertools import takewhile
from pathlib import Path

import optuna
from optuna.trial import TrialState

from autotune.search.bench import Bench
from autotune.search.evaluate import TrialRunner
from autotune.search.interrupts import checkpoint, pause
from autotune.search.liveness import attended, close, is_closed, retry_abandoned, running, surplus
from autotune.search.progress import Progress
from autotune.search.racing import pruner
from autotune.search.refine import Refiner
from autotune.search.samplers import sampler_for
from autotune.search.setup import Setup
from autotune.search.study import DUPLICATE_OF, POLICY_ID, evaluated, finished, waiting, waiting_recipes

REFINED = 1 / 3
"""Share of the trials, and of the time, that goes into neighbours of the best candidate."""

# The model of what is good keeps proposing what it knows once it has converged: look elsewhere then,
# and stop when chance, too, finds nothing new any more.
_REPEATS_UNTIL_RANDOM = 3
_REPEATS_UNTIL_EXHAUSTED = 60

# How often to look whether others have finished.
_POLL_SECONDS = 0.5


def explore(
    setup: Setup,
    study: optuna.Study,
    bench: Bench,
    folder: Path,
    trials: int,
    timeout: float,
    seed: int,
    progress: Progress,
) -> None:
    """One budget's search, by the tuner or by any other worker; their seeds differ, so that their candidates do."""
    search(
        study,
        TrialRunner(
            study,
            setup.proposer,
            bench,
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
        pictures=len(setup.tuning.prompts),
    )


def search(
    study: optuna.Study,
    runner: TrialRunner,
    refiner: Refiner | None,
    *,
    sampler: str,
    trials: int,
    timeout: float,
    seed: int,
    progress: Progress,
    pictures: int = 0,
) -> None:
    """Evaluate candidates until there are ``trials`` of them or time is up, and nobody works on any.

    Any number of workers may do so at once, on any number of machines; the time is the tuner's,
    which closes the study.

    Args:
        study: The study; may hold trials of earlier runs.
        runner: Evaluates one trial.
        refiner: Proposes the last third of the candidates; None leaves all to the sampler.
        sampler: Name of the sampler, see :mod:`autotune.search.samplers`.
        trials: Candidates in all, those of earlier runs included.
        timeout: Seconds after which no further candidate begins, but for queued recipes.
        seed: Decides the candidates.
        progress: Is told of every candidate.
        pictures: Pictures per candidate, for the progress display.
    """
    study.pruner = pruner()
    done = evaluated(study)
    progress.search(max(trials, len(done) + waiting_recipes(study)), len(done), timeout)
    for earlier in done:
        if earlier.state is TrialState.COMPLETE:
            progress.best(earlier.values[0], earlier.user_attrs["relative_cost"], earlier.user_attrs[POLICY_ID])
    started = time.monotonic()
    while True:
        checkpoint()
        retry_abandoned(study)
        ended, spent = finished(study), time.monotonic() - started
        candidates = len(evaluated(study))
        repeats = sum(1 for _ in takewhile(lambda each: DUPLICATE_OF in each.user_attrs, reversed(ended)))
        if spent >= timeout or repeats >= _REPEATS_UNTIL_EXHAUSTED:
            close(study)
        over = candidates >= trials or is_closed(study)
        if not waiting_recipes(study):
            others = len(running(study))
            if over and not others:
                return
            if over or candidates + others >= trials:
                progress.others(others)
                pause(_POLL_SECONDS)
                continue
        late = max(candidates / trials, spent / timeout if timeout else 1) >= 1 - REFINED
        if refiner is not None and late and not waiting(study):
            refiner.queue(study)
        study.sampler = sampler_for(sampler, seed, len(ended), explore=repeats >= _REPEATS_UNTIL_RANDOM)
        trial = study.ask()
        if surplus(study, trial.number, trials):
            study.tell(trial, state=TrialState.FAIL)
            continue
        progress.candidate(trial.number, pictures)
        with attended(study, trial):
            progress.report(runner.run(trial))
