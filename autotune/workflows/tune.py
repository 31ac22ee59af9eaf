"""From a pipeline and a budget to an exported policy."""

from __future__ import annotations

import functools
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import upload_artifact
from torch import Tensor

from autotune.core.errors import InputError, Unavailable, out_of_space
from autotune.core.faults import during
from autotune.core.interrupts import Interrupted, checkpoint, deferred
from autotune.core.naming import TUNER_LOG, budget_labels, default_study_name
from autotune.cost import Profile
from autotune.cost.profile.environment import describe_device
from autotune.evaluation.evaluator import Evaluator, Pictures
from autotune.evaluation.examples import Examples, Prompts
from autotune.evaluation.generation import without_bars
from autotune.evaluation.grid import save_grid
from autotune.evaluation.inputs import AnyInputs, read_rows
from autotune.evaluation.judges import AnyNetwork, AnyReference, AnyScorer
from autotune.evaluation.references import own_reference
from autotune.evaluation.timing import time_policies
from autotune.policy import MeasuredTime, Policy
from autotune.results.finalists import Finalists, best_trials, judge
from autotune.results.gallery import keep_gallery, shown_pictures
from autotune.results.search_record import keep_search_record
from autotune.results.tradeoff import FILE as TRADEOFF
from autotune.results.tradeoff import Tradeoff
from autotune.search.loop import explore
from autotune.search.trial_runner import artifact_store
from autotune.study.heartbeat import close
from autotune.study.manifest import Manifest, publish
from autotune.study.trials import (
    POLICY_KEY,
    attributes,
    check_studies,
    enqueue_recipes,
    evaluated,
    open_study,
    ranked,
    sqlite_url,
)
from autotune.workflows.export import exported, notes
from autotune.workflows.log import logged
from autotune.workflows.progress import Progress
from autotune.workflows.setup import PREFIX_MEMORY, Ranges, Setup, prepare
from autotune.workflows.spending import Spending, spending
from autotune.workflows.tradeoff import run_tradeoff_study
from autotune.workflows.undo import beyond_refusal, make_run_folder, undone_if_refused

_LOG = logging.getLogger(__name__)

FINALISTS = 3
"""Candidates of every last round."""

# Candidates of each other budget that a search begins with.
_LEARNED = 2

TIMED_IMAGES = 8
"""Pictures in a call whose time the last round measures, where the budget says nothing of time."""

OUTCOMES = "outcomes"
"""Folder of a run with what pictures scored."""

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


def tune(
    pipe: Any | None = None,
    budget: str = "40%",
    *,
    prompts: Prompts | None = None,
    inputs: AnyInputs | None = None,
    held_out: Prompts | AnyInputs | None = None,
    reference: AnyReference | None = None,
    scorer: AnyScorer | None = None,
    height: int | None = None,
    width: int | None = None,
    guidance_scale: float | None = None,
    steps: int | None = None,
    max_steps: int | None = None,
    trials: int = 48,
    timeout: float = 240.0,
    images: int = 256,
    held_out_images: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    network: AnyNetwork | None = None,
    objective: str = "quality",
    distance: str | None = None,
    weight_fd: float | None = None,
    weight_clip: float | None = None,
    space: Ranges | None = None,
    sampler: str = "tpe",
    early_stopping: bool | None = None,
    prefix_memory: str | int = PREFIX_MEMORY,
    target: Profile | str | Path | None = None,
    call_batch: int | None = None,
    max_cache_memory: str | int | None = None,
    study_name: str | None = None,
    storage: str | None = None,
    run_dir: str | Path | None = None,
    explain: bool = False,
    quiet: bool = False,
) -> TuneResult:
    """Search the policy with the least loss of quality within ``budget``, and export it.

    Everything is checked before the first file is written. The same call again resumes an
    interrupted search and counts what is already done; with another model, budget, prompts or
    other setting that scores depend on it refuses to, and asks for another ``study_name``.
    The same arguments give the same candidates and the same policy, unless the timeout cuts
    the search short.

    Args:
        pipe: A diffusers pipeline; None is the shipped ``emoji-unet``.
        budget: Share of the full run's FLOPs (``"40%"``), FLOPs of one picture (``"1.2TFLOPs"``), time of a
            pipeline call on the target (``"850ms"``, ``"40%ms"``, ``"2x"``), or several joined by commas.
        prompts: Prompts to tune on, as a list or a file; what any but the shipped model needs that depicts text.
        inputs: In their place, what each picture is asked for: mappings of arguments of the pipeline's call
            (``prompt``, ``negative_prompt``, ``class_label``, ``image``, ``mask_image``, ``strength``, ...), or a JSONL
            file of them, see :mod:`autotune.evaluation.inputs`. Without any a class-conditional pipeline gets all its
            classes, and an unconditional one seeds.
        held_out: Prompts or inputs for the last round; None sets a quarter of the others aside.
        reference: Pictures to resemble: a folder, statistics in a file, a ``Reference`` or ``Gaussian``; None
            is real pictures for the shipped model, and the full run's own with other seeds for others.
        scorer: An open_clip model (folder or ``hf-hub:``) or an object like ``autotune.quality.Scorer``.
        height: Pixels, by default the model's native height.
        width: Pixels, by default the model's native width.
        guidance_scale: By default what the model recommends, else the pipeline's default.
        steps: Steps of the full run, by default likewise.
        max_steps: Most steps a policy may have, by default half more than the full run.
        trials: Candidates to evaluate; repetitions are not counted, recipes are.
        timeout: Seconds after which no further candidate begins. The recipes always run.
        images: Most pictures per candidate.
        held_out_images: Pictures per run of the last round; prompts are used equally often. By default
            480, but no more than three of each prompt.
        batch_size: Pictures per pipeline call.
        seed: Decides the candidates, the choice of prompts and the pictures' seeds.
        network: Feature network that the distance to the reference is taken in, or its name (see
            :func:`autotune.quality.feature_network`); None takes the scorer's image features.
        objective: ``"quality"`` (distance to the reference and alignment with the prompts), or ``"fidelity"``: pictures
            as near as possible to the full run's.
        distance: Name of the distance's estimator, see :mod:`autotune.quality.estimators`.
        weight_fd: Weight of the distance in the quality objective, 1 unless given.
        weight_clip: Weight of the alignment in it, 4 unless given. Without prompts that differ there is none.
        space: Other ranges for some knobs of the search space, as a mapping of names to pairs, both ends included, or a
            TOML file (:func:`search_spaces.read_ranges`). Fewer steps are compared with whatever the ranges say.
        sampler: Optuna's sampler: ``tpe`` (multivariate), ``gp``, ``cmaes``, ``nsga2`` or ``random``.
        early_stopping: Whether no more pictures are made of candidates that are not among the better ones on their
            first; None: with the samplers that learn from such candidates, ``tpe`` and ``random``.
        prefix_memory: Most bytes, as a number or as ``"500MB"``, for what calls began with, so that others that begin
            alike go on from there; pictures are the same to the bit. 0 makes every call from its start.
        target: Hardware profile, or its file, that budgets in time are meant for; None is this machine, which
            is then profiled (once; the profile is kept).
        call_batch: Pictures per pipeline call in deployment, for budgets in time and memory; by default one, or
            the smallest batch of the target.
        max_cache_memory: Most bytes, as a number or as ``"500MB"``, that such a call may take for kept features
            and latents besides the plain pipeline's.
        study_name: By default made of model and budget.
        storage: SQLAlchemy URL of the study, by default SQLite in ``run_dir``.
        run_dir: By default ``runs/<study name>``.
        explain: Whether to find out afterwards, from 15 % to 100 % of the full run's FLOPs, if this model is better
            served by fewer steps, cheaper steps or both (:mod:`autotune.workflows.tradeoff`); takes
            several times as long.
        quiet: Show no progress.

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
    (result,) = tune_budgets(
        pipe,
        (budget,),
        prompts=prompts,
        inputs=inputs,
        held_out=held_out,
        reference=reference,
        scorer=scorer,
        height=height,
        width=width,
        guidance_scale=guidance_scale,
        steps=steps,
        max_steps=max_steps,
        trials=trials,
        timeout=timeout,
        images=images,
        held_out_images=held_out_images,
        batch_size=batch_size,
        seed=seed,
        network=network,
        objective=objective,
        distance=distance,
        weight_fd=weight_fd,
        weight_clip=weight_clip,
        space=space,
        sampler=sampler,
        early_stopping=early_stopping,
        prefix_memory=prefix_memory,
        target=target,
        call_batch=call_batch,
        max_cache_memory=max_cache_memory,
        study_name=study_name,
        storage=storage,
        run_dir=run_dir,
        explain=explain,
        quiet=quiet,
    )
    return result


def tune_budgets(
    pipe: Any | None,
    budgets: Sequence[str],
    *,
    prompts: Prompts | None = None,
    inputs: AnyInputs | None = None,
    images: int = 256,
    held_out_images: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    trials: int = 48,
    timeout: float = 240.0,
    study_name: str | None = None,
    storage: str | None = None,
    run_dir: str | Path | None = None,
    explain: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> tuple[TuneResult, ...]:
    """A policy for each of several budgets, which learn from one another.

    Every budget has a study of its own in the same storage, called ``<study name>-<budget>``. They share all
    pictures; the best knobs of one are tried first by the next; and every budget's last round takes the best candidates
    of all studies that it pays for, so that a larger budget's policy is never the worse one. The run directory holds
    ``policy-25.json`` for a budget of 25%, and a folder ``25`` with its finalists and its report.

    Args:
        pipe: As for :func:`tune`.
        budgets: Best growing; none twice.
        prompts: As for :func:`tune`, like all that follow.
        inputs: Likewise.
        images: Likewise.
        held_out_images: Likewise.
        batch_size: Likewise.
        seed: Likewise.
        trials: Candidates to evaluate for each budget.
        timeout: Seconds for each budget after which no further candidate begins.
        study_name: By default made of model and budgets.
        storage: SQLAlchemy URL of the studies, by default SQLite in ``run_dir``.
        run_dir: By default ``runs/<study name>``.
        explain: Likewise; the answer is the same for all budgets.
        quiet: Show no progress.
        **settings: Everything else that :func:`tune` takes.

    Returns:
        A result for each budget, in their order.

    Raises:
        InputError: an argument cannot be used; nothing was written.
        RunFailed: the search cannot go on, for a reason that only its pictures could tell; what is done stays.
        Interrupted: Ctrl-C; the same call resumes.
        Unavailable: the disk is full, or the storage has not answered for minutes; the same call resumes.
    """
    if trials < 1:
        raise InputError(f"trials is {trials}; give at least 1")
    if not timeout >= 0:
        raise InputError(f"timeout is {timeout:g} seconds; give 0 or more")
    budget_labels(budgets)
    given = settings | {
        "prompts": prompts,
        "inputs": None if inputs is None else read_rows(inputs),
        "images": images,
        "held_out_images": held_out_images,
        "batch_size": batch_size,
        "seed": seed,
    }
    with during("while preparing the search"), Progress(quiet=quiet) as progress:
        setups = prepare(pipe, budgets, on_progress=progress.profiling, **given)
    first = setups[0]
    name = study_name or default_study_name(first.model_name, *(str(setup.budget) for setup in setups))
    folder = Path(run_dir) if run_dir is not None else Path("runs") / name
    with quiet_optuna(), without_bars(first.pipe), undone_if_refused() as undo:
        make_run_folder(folder, undo)
        url = storage or sqlite_url(folder / "study.db")
        names = [name] if len(setups) == 1 else [default_study_name(name, str(setup.budget)) for setup in setups]
        wanted = {each: setup.configuration for each, setup in zip(names, setups, strict=True)}
        try:
            with logged(folder / TUNER_LOG), deferred(), Progress(quiet=quiet) as progress:
                with during("while opening the study"):
                    # All of them first: where one is refused none is made.
                    undo.studies(url, {*names} - check_studies(url, wanted))
                    studies = [open_study(each, url, configuration) for each, configuration in wanted.items()]
                    for setup, study in zip(setups, studies, strict=True):
                        publish(study, Manifest.of(name, pipe, setup, given, trials))
                undo.contents(folder / OUTCOMES)
                undo.contents(outcomes_folder(first, folder))
                # The last that may be refused: judges that cannot tell the full run's pictures from bad ones.
                evaluator = evaluator_for(first, first.tuning, "tuning", folder, progress)
                undo.forget()
                with beyond_refusal(), during("in the search"):
                    results = _run(setups, studies, evaluator, folder, trials, timeout, progress, storage)
                    return _explained(first, results, name, url, progress) if explain else results
        except KeyboardInterrupt:
            raise Interrupted(folder) from None
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
    trials: int,
    timeout: float,
    progress: Progress,
    storage: str | None,
) -> tuple[TuneResult, ...]:
    """Every budget's search, then every budget's last round, for which all searches have candidates."""
    first = setups[0]
    if not first.judges.text and first.judges.weights.fidelity == 0:
        progress.stage(f"the {first.noun} have no prompts that differ: alignment is no part of the loss")
    labels = budget_labels([str(setup.budget) for setup in setups])
    places = [folder / label if len(setups) > 1 else folder for label in labels]
    for setup, study, place in zip(setups, studies, places, strict=True):
        _LOG.info("study %s in %s: %s", study.study_name, place, json.dumps(setup.configuration.document()))
        place.mkdir(exist_ok=True)
        keep_search_record(setup, place, study=study.study_name, storage=storage)
    for number, (setup, study) in enumerate(zip(setups, studies, strict=True)):
        if len(setups) > 1:
            progress.stage(f"budget {setup.budget}")
        _keep_full_run(study, evaluator, folder)
        enqueue_recipes(study, [(recipe.name, recipe.proposal.values) for recipe in setup.recipes])
        enqueue_recipes(study, _learned(setups[:number], studies[:number]))
        close(study, False)
        explore(setup, study, evaluator, folder, trials, timeout, setup.configuration.seed, progress)
    with during("in the last round"):
        held_out = evaluator_for(first, first.held_out, "held-out", folder, progress)
    results = []
    for setup, study, place, label in zip(setups, studies, places, labels, strict=True):
        with during("in the last round"):
            finalists = _last_round(setup, study, studies, held_out, progress)
            finalists.save(place / "finalists.json")
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
            keep_search_record(setup, place, study=study.study_name, storage=storage, policies=shown)
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
                spending=spending(evaluated(study), len(setup.tuning.rows)),
                notes=notes(setup, policy),
            )
        )
    checkpoint()
    return tuple(results)


def _explained(
    setup: Setup, results: Sequence[TuneResult], name: str, url: str, progress: Progress
) -> tuple[TuneResult, ...]:
    """The results of one run with the answer to its question, which is kept beside each of its reports."""
    folder = results[0].run_dir
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


def _learned(setups: Sequence[Setup], studies: Sequence[optuna.Study]) -> list[tuple[str, dict[str, int]]]:
    """The best knob values of other budgets' searches, which are a good start for this one."""
    return [
        (f"best of {setup.budget}", dict(trial.params))
        for setup, study in zip(setups, studies, strict=True)
        for trial in ranked(study)[:_LEARNED]
    ]


def outcomes_folder(setup: Setup, folder: Path) -> Path:
    """Where a run in ``folder`` keeps what pictures scored, for as long as nothing that bears on it changes."""
    return folder / OUTCOMES / setup.configuration.pictures_digest


def evaluator_for(setup: Setup, examples: Examples, name: str, folder: Path, progress: Progress) -> Evaluator:
    """What evaluates policies on ``examples``, called ``name``; the full run's pictures are made now.

    Raises:
        InputError: the reference does not fit.
    """
    cache = outcomes_folder(setup, folder)
    count = len(examples.rows)
    reference = setup.reference
    if reference is None and setup.judges.weights.fd:
        progress.stage("pictures of the full run as reference", len(setup.tuning.rows))
        make = functools.partial(setup.pictures, setup.full, on_batch=progress.pictures)
        with during("in the reference"):
            reference = own_reference(
                make,
                setup.judges.distance_network,
                setup.tuning.rows,
                setup.reference_seed,
                cache / "reference.safetensors",
            )
    progress.stage(f"full run on {count} {name} {setup.noun}", count)

    def pictures(policy: Policy) -> Pictures:
        return setup.pictures(policy, examples.rows, examples.seeds, progress.pictures)

    with during(f"in the full run on {name} {setup.noun}"):
        return setup.judges.evaluator(pictures, examples.rows, reference, setup.full, cache / name)


def _keep_full_run(study: optuna.Study, evaluator: Evaluator, folder: Path) -> None:
    """Once per study: what every trial is compared with, for the dashboard."""
    if _FULL_RUN_GRID in study.user_attrs:
        return
    score = evaluator.objective.score(evaluator.full.evaluation)
    study.set_user_attr("full_run_distance", score.distance)
    if score.alignment is not None:
        study.set_user_attr("full_run_alignment", score.alignment)
    grid = folder / "grids" / "full_run.png"
    save_grid(evaluator.full.preview, grid)
    artifact = upload_artifact(
        artifact_store=artifact_store(folder), file_path=str(grid), study_or_trial=study, mimetype="image/png"
    )
    study.set_user_attr(_FULL_RUN_GRID, artifact)


def _last_round(
    setup: Setup, study: optuna.Study, studies: Sequence[optuna.Study], evaluator: Evaluator, progress: Progress
) -> Finalists:
    """The best candidates that the budget allows, whichever budget's search they come from."""
    fewer_steps = setup.recipes[0].proposal.policy
    candidates = best_trials(studies, FINALISTS, exclude=fewer_steps, within=setup.proposer.allows)
    progress.stage(f"the best candidates and fewer steps on held-out {setup.noun}", len(evaluator.rows))
    trial = next((t.number for t in evaluated(study) if attributes(t).get(POLICY_KEY) == fewer_steps.key), None)
    finalists = judge(evaluator, setup.full, fewer_steps, candidates, setup.pricer.price, fewer_steps_trial=trial)
    # Times under a bound on time are comparable with it.
    wanted = TIMED_IMAGES if setup.proposer.limits.latency_ms is None else setup.call_batch
    timed = min(wanted, setup.configuration.batch_size, len(evaluator.rows))
    checkpoint()
    progress.stage("measuring time", timed)

    # What is timed must be made from its start.
    whole_calls = replace(setup, maker=replace(setup.maker, prefixes=None))

    def run(policy: Policy) -> None:
        for _ in whole_calls.pictures(policy, setup.held_out.rows[:timed], setup.held_out.seeds[:timed]):
            pass

    full, *others = (run.policy for run in finalists.headline_runs)
    device = describe_device(setup.pipe.device).title[:200]
    batch_size = min(timed, setup.configuration.batch_size)
    with during("while measuring time"):
        timings = time_policies(run, full, others)
    return finalists.with_times(
        [
            MeasuredTime(
                device=device,
                batch_size=batch_size,
                ms_per_image=round(timing.seconds * 1000 / timed, 3),
                relative=round(timing.relative, 4),
            )
            for timing in timings
        ]
    )


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna logs a line for every trial, which the progress display says better.

    It also warns of recipes beyond a narrowed range, of which fewer steps are meant to be one, and where trials are
    asked for outside of its own loop, for then somebody else must give their signs of life, as :mod:`.liveness` does.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Fixed parameter")
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            yield
    finally:
        optuna.logging.set_verbosity(before)
