"""From a pipeline and a floor under its quality to the cheapest policy that is certified to hold it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import optuna

from autotune.core.faults import during
from autotune.core.interrupts import checkpoint
from autotune.core.naming import budget_labels, default_study_name
from autotune.cost import Budget
from autotune.evaluation.evaluator import Evaluator
from autotune.options import TuneOptions
from autotune.quality.floor import Floor
from autotune.study.manifest import Manifest
from autotune.workflows.finish import TuneResult, finished, keep_full_run
from autotune.workflows.floor_round import floor_round
from autotune.workflows.floor_search import Ladder, Rung, ceiling, search_floors
from autotune.workflows.helpers import Helpers
from autotune.workflows.search_record import keep_search_record
from autotune.workflows.session import Session, prepared, session
from autotune.workflows.undo import beyond_refusal

_LOG = logging.getLogger(__name__)


def tune_floors(
    pipe: Any | None,
    floors: Sequence[Floor],
    budget: Budget | None,
    options: TuneOptions,
    helpers: Helpers | None = None,
) -> tuple[TuneResult, ...]:
    """The cheapest policy that holds each of several floors, certified on held-out pictures.

    Up to three budgets are searched for a floor (:mod:`autotune.workflows.floor_search`), each in a study of its own
    called ``<study name>-<budget>``; several floors share them. The last round tests candidates from the dearest to
    the cheapest (:mod:`autotune.quality.floor`). Where it certifies none the full run is exported, which holds every
    floor; ``finalists.floor.met`` is then False.

    Studies do not depend on the floor: with the same study name another one begins with what is there.

    Args:
        pipe: As for :func:`autotune.workflows.tune.tune`.
        floors: None twice. With several of them the run's folder holds ``policy-loss-0.02.json`` and a folder
            ``loss-0.02`` with its report for a loss of 0.02.
        budget: Must hold besides; None is any.
        options: Trials and timeout are those of one search at the middle of the budgets; all searches for a floor take
            twice that at most.
        helpers: As for :func:`autotune.workflows.tune.tune_budgets`.

    Returns:
        A result for each floor, in their order.

    Raises:
        InputError: an argument cannot be used; nothing was written.
        RunFailed: the search cannot go on, for a reason that only its pictures could tell; what is done stays.
        Interrupted: Ctrl-C; the same call resumes.
        Unavailable: the disk is full, or the storage has not answered for minutes; the same call resumes.
    """
    labels = floor_labels(floors)
    (top,) = prepared(pipe, [ceiling(budget, target=options.target is not None)], options)
    name = options.study_name or default_study_name(top.model_name, *labels, *([str(budget)] if budget else []))
    ladder = Ladder.of(top, name, options, budget)

    with session(top, name, options) as running:

        def opened(rung: Rung) -> optuna.Study:
            manifest = Manifest.of(name, pipe, rung.setup, replace(options, trials=rung.trials))
            return running.open(rung.name, rung.setup, manifest, alone=helpers is None)

        with during("while opening the study"):
            running.check({rung.name: rung.setup.configuration for rung in ladder.rungs})
            # The others are opened when it is their turn; what refuses one refuses all.
            opened(ladder.rungs[ladder.first])
        evaluator = running.begin(2 * options.timeout * len(floors))
        with beyond_refusal(), during("in the search"):
            return _run(ladder, floors, labels, evaluator, running, options, helpers, opened)


def floor_labels(floors: Sequence[Floor]) -> list[str]:
    """What tells the files of several floors apart.

    Raises:
        InputError: Two are the same.

    Example:
        >>> floor_labels([Floor(0.02), Floor(0.1, 0.3)])
        ['loss-0.02', 'loss-0.1-and-change-0.3']
    """
    return budget_labels([str(floor) for floor in floors], "floor")


def _run(
    ladder: Ladder,
    floors: Sequence[Floor],
    labels: Sequence[str],
    evaluator: Evaluator,
    running: Session,
    options: TuneOptions,
    helpers: Helpers | None,
    opened: Callable[[Rung], optuna.Study],
) -> tuple[TuneResult, ...]:
    folder, progress = running.folder, running.progress
    places = [folder / label if len(floors) > 1 else folder for label in labels]
    for place in places:
        place.mkdir(exist_ok=True)

    def begun(rung: Rung) -> optuna.Study:
        study = opened(rung)
        _LOG.info("study %s: %s", study.study_name, json.dumps(rung.setup.configuration.document()))
        keep_full_run(study, evaluator, folder)
        for place in places:
            # What is to be seen while it goes on.
            keep_search_record(rung.setup, place, study=study.study_name, storage=options.storage)
        return study

    def helping(rung: Rung, study: optuna.Study) -> AbstractContextManager[None]:
        # Studies of a floor are made one after the other, so that workers join each of them anew.
        return running.helped(helpers, study.study_name, [study], rung.trials)

    prospects = search_floors(ladder, floors, evaluator, folder, options, progress, begun, helping)
    progress.phase("last round", "all candidates and what it finished are")
    judging = running.judging()
    results = []
    for floor, label, place, prospect in zip(floors, labels, places, prospects, strict=True):
        with during("in the last round"):
            found = floor_round(ladder, floor, prospect.sequence(), judging, progress)
        policy_file = folder / (f"policy-{label}.json" if len(floors) > 1 else "policy.json")
        rung, study = ladder.rungs[found.place], ladder.studies[found.place]
        results.append(
            finished(
                rung.setup,
                study,
                found.finalists,
                found.evaluator,
                place,
                policy_file,
                options.storage,
                progress,
                list(ladder.studies.values()),
            )
        )
    checkpoint()
    return tuple(results)
