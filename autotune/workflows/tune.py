"""From a pipeline and a budget to an exported policy."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ParamSpec, Protocol

import optuna
from optuna.artifacts import upload_artifact
from torch import Tensor

from autotune.core.errors import InputError, Unavailable, out_of_space
from autotune.core.faults import during
from autotune.core.interrupts import Interrupted, checkpoint, deferred
from autotune.core.naming import TUNER_LOG, budget_labels, default_study_name
from autotune.cost import Budget, parse_budget
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.grid import save_grid, square
from autotune.evaluation.inputs import read_rows
from autotune.evaluation.second_opinion import SecondOpinion
from autotune.options import TuneOptions
from autotune.options.declare import with_keywords
from autotune.pipelines.bars import without_bars
from autotune.policy import Policy
from autotune.quality.panel import FIDELITY
from autotune.results.finalists import FILE as FINALISTS
from autotune.results.finalists import Finalists
from autotune.results.gallery import keep_gallery, shown_pictures
from autotune.results.tradeoff import FILE as TRADEOFF
from autotune.results.tradeoff import Tradeoff
from autotune.search.trial_runner import artifact_store
from autotune.study.heartbeat import await_tuner
from autotune.study.manifest import Manifest, manifest_of, publish
from autotune.study.trials import check_studies, evaluated, open_study, sqlite_url
from autotune.workflows.evaluators import OUTCOMES, evaluator_for, outcomes_folder
from autotune.workflows.explore import explore_budgets
from autotune.workflows.export import exported, notes
from autotune.workflows.helpers import Helpers
from autotune.workflows.last_round import last_round
from autotune.workflows.log import logged
from autotune.workflows.progress import Progress, clock
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.search_record import keep_search_record
from autotune.workflows.setup import Setup, prepare
from autotune.workflows.spending import Spending, spending
from autotune.workflows.tradeoff import run_tradeoff_study
from autotune.workflows.undo import beyond_refusal, make_run_folder, undone_if_refused

P = ParamSpec("P")

_LOG = logging.getLogger(__name__)

_FULL_RUN_GRID = "full_run_grid"


@dataclass(frozen=True, eq=False)
class TuneResult:
    """What a search found.

    Attributes:
        policy: The exported policy, complete with cost, held-out quality and provenance.
        baseline: Fewer steps at the same cost. ``policy`` runs the same where nothing beat it
            (``finalists.better`` is False).
        finalists: Held-out scores of everything in the last round.
        study: The Optuna study.
        run_dir: Holds ``policy.json``, ``finalists.json``, ``artifacts/`` and, unless another storage
            was given, ``study.db``.
        policy_folder: Holds ``policy.json`` and what the report of it is made from: ``run_dir``, or with several
            budgets a folder in it.
        policy_file: Where the policy was written, in ``run_dir``.
        noun: What the inputs are: prompts, classes, seeds or anything else.
        preview_prompts: The first n held-out inputs as people read them: a prompt is itself.
        preview_inputs: Pictures among them, (n, 3, H, W) uint8 of the tuned size, by the names of their arguments.
        previews: Pictures of them, (n, 3, H, W) uint8, of each run on ``finalists.headline_runs``.
        spending: What the search's pictures took.
        notes: What a user should know of the budget: doubts about the target's profile, time over the budget.
        tradeoff: Whether fewer or cheaper steps serve the model better, where that was asked.
    """

    policy: Policy
    baseline: Policy
    finalists: Finalists
    study: optuna.Study
    run_dir: Path
    policy_folder: Path
    policy_file: Path
    preview_prompts: tuple[str, ...]
    previews: tuple[Tensor, ...]
    spending: Spending
    noun: str = "prompts"
    preview_inputs: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tradeoff: Tradeoff | None = None


class _Tune(Protocol[P]):
    """:func:`tune` with the keywords of :class:`autotune.options.TuneOptions`."""

    def __call__(
        self, pipe: Any | None = None, budget: str = "40%", *args: P.args, **options: P.kwargs
    ) -> TuneResult: ...


def _with(declaration: Callable[P, TuneOptions]) -> Callable[[Callable[..., TuneResult]], _Tune[P]]:
    """Have a function take its options as keywords, which type checkers know from their declaration."""

    def decorate(function: Callable[..., TuneResult]) -> _Tune[P]:
        return with_keywords(function, TuneOptions)

    return decorate


@_with(TuneOptions)
def tune(pipe: Any | None = None, budget: str = "40%", *, options: TuneOptions) -> TuneResult:
    """Search the policy with the least loss of quality within ``budget``, and export it.

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
            pipeline call on the target (``"850ms"``, ``"40%ms"``, ``"2x"``), or several joined by commas.
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
    (result,) = tune_budgets(pipe, (parse_budget(budget),), options)
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
    if options.inputs is not None:
        options = replace(options, inputs=read_rows(options.inputs))
    try:
        with during("while preparing the search"), Progress(quiet=options.quiet) as progress:
            setups = prepare(pipe, budgets, options, on_progress=progress.profiling)
    except KeyboardInterrupt:
        said = "interrupted while preparing the search; nothing of it is kept yet, repeat the same command to begin"
        raise Interrupted(Path(options.run_dir or "."), said) from None
    first = setups[0]
    name = options.study_name or default_study_name(first.model_name, *(str(setup.budget) for setup in setups))
    folder = Path(options.run_dir) if options.run_dir is not None else Path("runs") / name
    with quiet_optuna(), without_bars(first.pipe), undone_if_refused() as undo:
        make_run_folder(folder, undo)
        url = options.storage or sqlite_url(folder / "study.db")
        names = [name] if len(setups) == 1 else [default_study_name(name, str(setup.budget)) for setup in setups]
        wanted = {each: setup.configuration for each, setup in zip(names, setups, strict=True)}
        try:
            with logged(folder / TUNER_LOG), deferred(), Progress(quiet=options.quiet) as progress:
                with during("while opening the study"):
                    # All of them first: where one is refused none is made.
                    undo.studies(url, {*names} - check_studies(url, wanted))
                    studies = [open_study(each, url, configuration) for each, configuration in wanted.items()]
                    for setup, study in zip(setups, studies, strict=True):
                        publish(study, Manifest.of(name, pipe, setup, options))
                        if helpers is not None and (alone := manifest_of(study).alone) is not None:
                            raise InputError(f"no other process can join the search: {alone}")
                undo.contents(folder / OUTCOMES)
                undo.contents(outcomes_folder(first, folder))
                # The last that may be refused: judges that cannot tell the full run's pictures from bad ones.
                most = options.timeout * len(setups)
                search = f"the search, at most {clock(most)}," if math.isfinite(most) else "the search"
                progress.phase("full run", "what it finished is", then=f"{search} and the last round")
                evaluator = evaluator_for(first, first.tuning, "tuning", folder, progress)
                undo.forget()
                with beyond_refusal(), during("in the search"):
                    started = None if helpers is None else partial(helpers, url, name, folder, progress.notice)
                    results = _run(setups, studies, evaluator, folder, options, progress, started)
                    return _explained(first, results, name, url, progress) if options.explain else results
        except KeyboardInterrupt:
            raise Interrupted(folder, progress.interrupted(folder)) from None
        except OSError as error:
            if not out_of_space(error):
                raise
            raise Unavailable(
                f"{folder} cannot be written to ({error.strerror}); make room, then repeat the same command to go on"
            ) from error


def _run(
    setups: Sequence[Setup],
    studies: Sequence[optuna.Study],
    evaluator: Evaluator,
    folder: Path,
    options: TuneOptions,
    progress: Progress,
    helpers: Callable[[], AbstractContextManager[None]] | None,
) -> tuple[TuneResult, ...]:
    """Every budget's search, then every budget's last round, for which all searches have candidates."""
    first = setups[0]
    if not first.judges.text and not first.judges.panel.weight(FIDELITY):
        progress.stage(f"the {first.noun} have no prompts that differ: alignment is no part of the loss")
    labels = budget_labels([str(setup.budget) for setup in setups])
    places = [folder / label if len(setups) > 1 else folder for label in labels]
    for setup, study, place in zip(setups, studies, places, strict=True):
        _LOG.info("study %s in %s: %s", study.study_name, place, json.dumps(setup.configuration.document()))
        place.mkdir(exist_ok=True)
        keep_search_record(setup, place, study=study.study_name, storage=options.storage)
    for study in studies:
        _keep_full_run(study, evaluator, folder)
    with _at_work(helpers, studies, options.trials):
        explore_budgets(setups, studies, evaluator, folder, options, progress)
    progress.phase("last round", "all candidates and what it finished are")

    @cache
    def judging(count: int) -> tuple[Evaluator, SecondOpinion | None]:
        inputs = first.held_out.head(count)
        evaluator = evaluator_for(first, inputs, "held-out", folder, progress, first.last_judges)
        return evaluator, SecondOpinion.of(first.second_opinion, evaluator)

    results = []
    for setup, study, place, label in zip(setups, studies, places, labels, strict=True):
        with during("in the last round"):
            finalists, held_out = last_round(setup, study, studies, judging, progress)
            finalists.save(place / FINALISTS)
        policy_file = folder / (f"policy-{label}.json" if len(setups) > 1 else "policy.json")
        with during(f"in the export of {policy_file.name}"):
            policy = exported(setup, study, finalists)
            _LOG.info("budget %s: %s, exports %s", setup.budget, finalists.verdict, policy.id)
            policy.save(place / "policy.json")
            if policy_file.parent != place:
                policy.save(policy_file)
        checkpoint()
        progress.stage("pictures to look at")
        with during("in the pictures to look at"):
            keep_gallery(place, finalists, held_out, setup.held_out.seeds, setup.pictures, setup.maker.size)
            shown = [run.policy for run in finalists.headline_runs]
            spent, seconds = spending(evaluated(study), len(setup.tuning.rows)), progress.laps.seconds
            for what, each in seconds.items():
                _LOG.info("%s took %s", what, clock(each))
            keep_search_record(
                setup,
                place,
                study=study.study_name,
                storage=options.storage,
                policies=shown,
                exact_share=round(spent.exact_share, 4),
                seconds=seconds,
            )
        results.append(
            TuneResult(
                policy=policy,
                baseline=finalists.fewer_steps.policy,
                finalists=finalists,
                study=study,
                run_dir=folder,
                policy_folder=place,
                policy_file=policy_file,
                noun=setup.noun,
                preview_prompts=tuple(row.label for row in held_out.rows[: len(held_out.full.preview)]),
                preview_inputs=shown_pictures(held_out.rows[: len(held_out.full.preview)], setup.maker.size),
                previews=tuple(held_out.outcome(run.policy).preview for run in finalists.headline_runs),
                spending=spent,
                notes=notes(setup, policy),
            )
        )
    checkpoint()
    return tuple(results)


def _at_work(
    helpers: Callable[[], AbstractContextManager[None]] | None, studies: Sequence[optuna.Study], trials: int
) -> AbstractContextManager[None]:
    """The helpers, where there are any and something is left to do."""
    if helpers is None or all(len(evaluated(study)) >= trials for study in studies):
        return nullcontext()
    for study in studies:
        # What an earlier run has closed would look done to them before this one opens it again.
        await_tuner(study)
    return helpers()


def _explained(
    setup: Setup, results: Sequence[TuneResult], name: str, url: str, progress: Progress
) -> tuple[TuneResult, ...]:
    """The results of one run with its tradeoff study, which is kept beside each of its reports."""
    folder = results[0].run_dir
    progress.phase("study of fewer or cheaper steps", "the exported policy and what it finished are")
    with during("in fewer or cheaper steps"):
        found = run_tradeoff_study(
            setup,
            evaluator_for(setup, setup.tuning, "tuning", folder, progress),
            evaluator_for(setup, setup.held_out, "held-out", folder, progress),
            folder,
            name=name,
            url=url,
            progress=progress,
            tuned=[result.study for result in results],
        )
    for result in results:
        found.save(result.policy_folder / TRADEOFF)
    return tuple(replace(result, tradeoff=found) for result in results)


def _keep_full_run(study: optuna.Study, evaluator: Evaluator, folder: Path) -> None:
    """Once per study: what every trial is compared with, for the dashboard."""
    if _FULL_RUN_GRID in study.user_attrs:
        return
    score = evaluator.objective.score(evaluator.full.evaluation)
    study.set_user_attr("full_run_distance", score.distance)
    if score.alignment is not None:
        study.set_user_attr("full_run_alignment", score.alignment)
    grid = folder / "grids" / "full_run.png"
    save_grid(square(evaluator.full.preview), None, grid)
    artifact = upload_artifact(
        artifact_store=artifact_store(folder), file_path=str(grid), study_or_trial=study, mimetype="image/png"
    )
    study.set_user_attr(_FULL_RUN_GRID, artifact)
