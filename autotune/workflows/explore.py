"""One budget's search, as every worker runs it, and those of several budgets, which learn from one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna

from autotune.evaluation.evaluator import Evaluator
from autotune.options import TuneOptions
from autotune.search.candidate_scores import CandidateScorer
from autotune.search.local_search import Refiner
from autotune.search.loop import SearchProgress, search
from autotune.search.trial_runner import TrialRunner
from autotune.study.heartbeat import close, is_closed
from autotune.study.trials import enqueue_recipes, ranked
from autotune.workflows.forecast import pictures_after
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup
from search_spaces.earlier import completed

# Of every budget, so many of the best are tried at the others.
_LEARNED = 2


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
    scorer = CandidateScorer(
        evaluator,
        setup.proposer.price,
        prefixes=setup.maker.prefixes,
        flops=setup.pricer.first_calls_flops,
        early_stopping=setup.configuration.early_stopping,
    )
    search(
        study,
        TrialRunner(study, setup.proposer, scorer, folder),
        Refiner(setup.proposer, seed, setup.sensitivity),
        sampler=setup.configuration.sampler,
        trials=trials,
        timeout=timeout,
        seed=seed,
        progress=progress,
        pictures=len(setup.tuning.rows),
    )


def search_at(
    setup: Setup,
    study: optuna.Study,
    others: Sequence[tuple[Setup, optuna.Study]],
    evaluator: Evaluator,
    folder: Path,
    options: TuneOptions,
    timeout: float,
    progress: SearchProgress,
) -> None:
    """One budget's search by the tuner, which begins with known recipes and the best that other budgets found.

    Args:
        setup: Of the budget.
        study: Its study, which workers may join from now on.
        others: Those searched before.
        evaluator: Of the tuning inputs.
        folder: The run's.
        options: Trials and seed are the budget's.
        timeout: In seconds.
        progress: Is told of what is done.
    """
    enqueue_recipes(study, [(recipe.name, recipe.proposal.values) for recipe in setup.recipes])
    names = [knob.name for knob in setup.proposer.space.knobs]
    for other, found in others:
        best = [completed(trial.params, names) for trial in ranked(found)[:_LEARNED]]
        enqueue_recipes(study, [(f"best of {other.budget}", values) for values in best])
    close(study, False)
    explore(setup, study, evaluator, folder, options.trials, timeout, options.seed, progress)


def explore_budgets(
    setups: Sequence[Setup],
    studies: Sequence[optuna.Study],
    evaluator: Evaluator,
    folder: Path,
    options: TuneOptions,
    progress: Progress,
) -> None:
    """The searches of all budgets, the cheapest first; the best knobs of each are tried at all others.

    The number of steps is solved anew for each. A cheaper budget's policies as they are need no trial of their own: the
    last round takes what all studies found and its budget pays for.

    Args:
        setups: One for each budget.
        studies: As many.
        evaluator: Of the tuning inputs, for all of them.
        folder: The run's.
        options: Trials, timeout and seed are each budget's.
        progress: Is told of what is done.
    """
    growing = sorted(range(len(setups)), key=lambda number: setups[number].recipes[0].proposal.cost.flops)

    def run(number: int, others: Sequence[int], timeout: float) -> None:
        found = [(setups[other], studies[other]) for other in others]
        search_at(setups[number], studies[number], found, evaluator, folder, options, timeout, progress)

    for place, number in enumerate(growing):
        if len(setups) > 1:
            progress.stage(f"budget {setups[number].budget}")
        others = len(setups) - 1 - place
        words = "the last round" if len(setups) == 1 else "the last rounds"
        if others:
            words = f"{others} more search{'es' * (others > 1)} and {words}"
        progress.then(words, pictures_after(setups, setups[number]), others)
        run(number, growing[:place], options.timeout)
    for place, number in enumerate(growing[:-1]):
        progress.stage(f"what larger budgets found, at {setups[number].budget}")
        progress.then("the last rounds", pictures_after(setups, setups[number]))
        # No time for anything but that, which closes the study; workers may have more to do in it.
        closed = is_closed(studies[number])
        run(number, growing[place + 1 :], 0)
        close(studies[number], closed)
