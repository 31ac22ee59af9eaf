"""From a pipeline and a budget to an exported policy."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, Protocol

import optuna

from autotune.core.faults import during
from autotune.core.interrupts import checkpoint
from autotune.core.naming import budget_labels, default_study_name
from autotune.cost import Budget, parse_budget
from autotune.evaluation.evaluator import Evaluator
from autotune.options import TuneOptions
from autotune.options.declare import with_keywords
from autotune.results.tradeoff import FILE as TRADEOFF
from autotune.study.manifest import Manifest
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.explore import explore_budgets
from autotune.workflows.finish import TuneResult, finished, keep_full_run
from autotune.workflows.helpers import Helpers
from autotune.workflows.last_round import last_round
from autotune.workflows.search_record import keep_search_record
from autotune.workflows.session import Session, prepared, session
from autotune.workflows.setup import Setup
from autotune.workflows.tradeoff import run_tradeoff_study
from autotune.workflows.tune_floors import tune_floors
from autotune.workflows.undo import beyond_refusal

__all__ = ["BUDGET", "TuneResult", "tune", "tune_budgets"]

P = ParamSpec("P")

_LOG = logging.getLogger(__name__)

BUDGET = "40%"
"""Where neither a budget nor a floor is given."""


class _Tune(Protocol[P]):
    """:func:`tune` with the keywords of :class:`autotune.options.TuneOptions`."""

    def __call__(
        self, pipe: Any | None = None, budget: str | None = None, *args: P.args, **options: P.kwargs
    ) -> TuneResult: ...


def _with(declaration: Callable[P, TuneOptions]) -> Callable[[Callable[..., TuneResult]], _Tune[P]]:
    """Have a function take its options as keywords, which type checkers know from their declaration."""

    def decorate(function: Callable[..., TuneResult]) -> _Tune[P]:
        return with_keywords(function, TuneOptions)

    return decorate


@_with(TuneOptions)
def tune(pipe: Any | None = None, budget: str | None = None, *, options: TuneOptions) -> TuneResult:
    """Search the policy with the least loss of quality within ``budget``, and export it.

    With ``max_loss`` or ``max_change`` it is the cheapest policy above that floor instead, within ``budget`` if one is
    given; see :func:`autotune.workflows.tune_floors.tune_floors`.

    Everything is checked before the first file is written. The same call again resumes an
    interrupted search and counts what is already done; with another model, budget, prompts or
    other setting that scores depend on it refuses to, and asks for another ``study_name``.
    The same arguments give the same candidates and the same policy, unless the timeout cuts
    the search short.

    Where an option names a file, Python takes what is in it as well: a list of prompts, mappings of arguments as
    inputs (:mod:`autotune.evaluation.inputs`), a ``Reference`` or ``Gaussian``, a mapping of knobs to pairs, a
    ``Profile``. Scorer and network may be objects like ``autotune.quality.Scorer``. Without inputs of its own a
    class-conditional pipeline gets all its classes, and an unconditional one seeds.

    Args:
        pipe: A diffusers pipeline; None is the shipped ``emoji-unet``.
        budget: Share of the full run's FLOPs (``"40%"``), FLOPs of one picture (``"1.2TFLOPs"``), time of a
            pipeline call on the target (``"850ms"``, ``"40%ms"``, ``"2x"``), or several joined by commas. None is
            40%, or any with a floor.
        options: As keywords, see below and :class:`autotune.options.TuneOptions`.

    Raises:
        InputError: an argument cannot be used; nothing was written.
        RunFailed: the search cannot go on, for a reason that only its pictures could tell; what is done stays.
        Interrupted: Ctrl-C; the same call resumes.
        Unavailable: the disk is full, or the storage has not answered for minutes; the same call resumes.

    Example:
        >>> result = autotune.tune(pipe, "40%", prompts=prompts, scorer=scorer, steps=10, trials=4, quiet=True)
        >>> result.policy.cost.relative <= 0.4, result.finalists.verdict in ("better", "no better")
        (True, True)
    """
    given = None if budget is None else parse_budget(budget)
    if options.floor is not None:
        (result,) = tune_floors(pipe, (options.floor,), given, options)
    else:
        (result,) = tune_budgets(pipe, (given or parse_budget(BUDGET),), options)
    return result


def tune_budgets(
    pipe: Any | None, budgets: Sequence[Budget], options: TuneOptions, helpers: Helpers | None = None
) -> tuple[TuneResult, ...]:
    """A policy for each of several budgets, which learn from one another.

    Every budget has a study of its own in the same storage, called ``<study name>-<budget>``. They share all
    pictures; the best knobs of one are tried first by the next; and every budget's last round takes the best candidates
    of all studies that it pays for, so that a larger budget's policy is never the worse one. The run directory holds
    ``policy-25.json`` for a budget of 25%, and a folder ``25`` with its finalists and its report. Trials and timeout
    are each budget's; whether fewer or cheaper steps serve the model better is asked once.

    Args:
        pipe: As for :func:`tune`.
        budgets: Best growing; none twice.
        options: As for :func:`tune`.
        helpers: Starts workers that join the search while candidates are evaluated; None leaves all to this process
            and to those whom others start.

    Returns:
        A result for each budget, in their order.

    Raises:
        InputError: an argument cannot be used; nothing was written.
        RunFailed: the search cannot go on, for a reason that only its pictures could tell; what is done stays.
        Interrupted: Ctrl-C; the same call resumes.
        Unavailable: the disk is full, or the storage has not answered for minutes; the same call resumes.
    """
    budget_labels([str(budget) for budget in budgets])
    setups = prepared(pipe, budgets, options)
    first = setups[0]
    name = options.study_name or default_study_name(first.model_name, *(str(setup.budget) for setup in setups))
    with session(first, name, options) as running:
        names = [name] if len(setups) == 1 else [default_study_name(name, str(setup.budget)) for setup in setups]
        wanted = {each: setup.configuration for each, setup in zip(names, setups, strict=True)}
        with during("while opening the study"):
            # All of them first: where one is refused none is made.
            running.check(wanted)
            studies = [
                running.open(each, setup, Manifest.of(name, pipe, setup, options), alone=helpers is None)
                for each, setup in zip(names, setups, strict=True)
            ]
        evaluator = running.begin(options.timeout * len(setups))
        with beyond_refusal(), during("in the search"):
            results = _run(setups, studies, evaluator, running, name, options, helpers)
            return _explained(first, results, name, running) if options.explain else results


def _run(
    setups: Sequence[Setup],
    studies: Sequence[optuna.Study],
    evaluator: Evaluator,
    running: Session,
    name: str,
    options: TuneOptions,
    helpers: Helpers | None,
) -> tuple[TuneResult, ...]:
    """Every budget's search, then every budget's last round, for which all searches have candidates."""
    folder, progress = running.folder, running.progress
    labels = budget_labels([str(setup.budget) for setup in setups])
    places = [folder / label if len(setups) > 1 else folder for label in labels]
    for setup, study, place in zip(setups, studies, places, strict=True):
        _LOG.info("study %s in %s: %s", study.study_name, place, json.dumps(setup.configuration.document()))
        place.mkdir(exist_ok=True)
        keep_search_record(setup, place, study=study.study_name, storage=options.storage)
    for study in studies:
        keep_full_run(study, evaluator, folder)
    with running.helped(helpers, name, studies, options.trials):
        explore_budgets(setups, studies, evaluator, folder, options, progress)
    progress.phase("last round", "all candidates and what it finished are")
    judging = running.judging()
    results = []
    for setup, study, place, label in zip(setups, studies, places, labels, strict=True):
        with during("in the last round"):
            finalists, held_out = last_round(setup, study, studies, judging, progress)
        policy_file = folder / (f"policy-{label}.json" if len(setups) > 1 else "policy.json")
        results.append(
            finished(setup, study, finalists, held_out, place, policy_file, options.storage, progress, [study])
        )
    checkpoint()
    return tuple(results)


def _explained(setup: Setup, results: Sequence[TuneResult], name: str, running: Session) -> tuple[TuneResult, ...]:
    """The results of one run with its tradeoff study, which is kept beside each of its reports."""
    folder, progress = running.folder, running.progress
    progress.phase("study of fewer or cheaper steps", "the exported policy and what it finished are")
    with during("in fewer or cheaper steps"):
        found = run_tradeoff_study(
            setup,
            evaluator_for(setup, setup.tuning, "tuning", folder, progress),
            evaluator_for(setup, setup.held_out, "held-out", folder, progress),
            folder,
            name=name,
            url=running.url,
            progress=progress,
            tuned=[result.study for result in results],
        )
    for result in results:
        found.save(result.policy_folder / TRADEOFF)
    return tuple(replace(result, tradeoff=found) for result in results)
