"""From a pipeline and a budget to an exported policy."""

from __future__ import annotations

import datetime
import functools
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import upload_artifact
from torch import Tensor

import autotune
from autotune.cost import Profile
from autotune.cost.environment import describe_device, versions
from autotune.errors import InputError
from autotune.policy import MeasuredTime, Policy, PolicyCost, PredictedTime, Provenance
from autotune.search.bench import Bench, Pictures
from autotune.search.evaluate import TrialRunner, artifact_store
from autotune.search.finalists import Contender, Finalists, best_trials, judge
from autotune.search.grid import save_grid
from autotune.search.interrupts import Interrupted, checkpoint, deferred
from autotune.search.judges import AnyNetwork, AnyReference, AnyScorer
from autotune.search.making import without_bars
from autotune.search.outline import keep_outline
from autotune.search.progress import Progress
from autotune.search.references import own_reference
from autotune.search.setup import Examples, Prompts, Ranges, Setup, prepare
from autotune.search.showcase import keep_showcase
from autotune.search.study import (
    DUPLICATE_OF,
    POLICY_ID,
    POLICY_KEY,
    enqueue_recipes,
    evaluated,
    finished,
    open_study,
    release_interrupted,
    sampler_for,
    sqlite_url,
    waiting_recipes,
)
from autotune.search.timing import time_policies

FINALISTS = 3

_FULL_RUN_GRID = "full_run_grid"
_TIMED_IMAGES = 8
# Predictions of time are meant to hold within five percent.
_TOLERATED = 1.05
# The model of what is good keeps proposing what it knows once it has converged: look elsewhere then,
# and stop when chance, too, finds nothing new any more.
_REPEATS_UNTIL_RANDOM = 3
_REPEATS_UNTIL_EXHAUSTED = 60


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
        preview_prompts: The first n held-out prompts.
        previews: Pictures of them, (n, 3, H, W) uint8, of each run on ``finalists.podium``.
        notes: What a user should know of the budget: doubts about the target's profile, time over the budget.
    """

    policy: Policy
    baseline: Policy
    finalists: Finalists
    study: optuna.Study
    run_dir: Path
    preview_prompts: tuple[str, ...]
    previews: tuple[Tensor, ...]
    notes: tuple[str, ...] = ()


def tune(
    pipe: Any | None = None,
    budget: str = "40%",
    *,
    prompts: Prompts | None = None,
    held_out: Prompts | None = None,
    reference: AnyReference | None = None,
    scorer: AnyScorer | None = None,
    height: int | None = None,
    width: int | None = None,
    guidance_scale: float | None = None,
    steps: int | None = None,
    max_steps: int | None = None,
    trials: int = 48,
    timeout: float = 240.0,
    images: int = 64,
    held_out_images: int = 264,
    batch_size: int = 16,
    seed: int = 0,
    network: AnyNetwork | None = None,
    objective: str = "quality",
    distance: str | None = None,
    weight_fd: float | None = None,
    weight_clip: float | None = None,
    space: Ranges | None = None,
    target: Profile | str | Path | None = None,
    call_batch: int | None = None,
    max_cache_memory: str | int | None = None,
    study_name: str | None = None,
    storage: str | None = None,
    run_dir: str | Path | None = None,
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
        prompts: Prompts to tune on, as a list or a file; needed for any but the shipped model.
        held_out: Prompts for the last round; None sets a quarter of ``prompts`` aside.
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
        images: Pictures per candidate.
        held_out_images: Pictures per run of the last round; prompts are used equally often.
        batch_size: Pictures per pipeline call.
        seed: Decides the candidates, the choice of prompts and the pictures' seeds.
        network: Feature network that the distance to the reference is taken in, or its name (see
            :func:`autotune.quality.feature_network`); None takes the scorer's image features.
        objective: ``"quality"`` (distance to the reference and alignment with the prompts), or ``"fidelity"``: pictures
            as near as possible to the full run's.
        distance: Name of the distance's estimator, see :mod:`autotune.quality.estimators`.
        weight_fd: Weight of the distance in the quality objective, 1 unless given.
        weight_clip: Weight of the alignment in it, 4 unless given.
        space: Other ranges for some knobs of the search space, as a mapping of names to pairs, both ends included, or a
            TOML file (:func:`search_spaces.read_ranges`). Fewer steps are compared with whatever the ranges say.
        target: Hardware profile, or its file, that budgets in time are meant for; None is this machine, which
            is then profiled (once; the profile is kept).
        call_batch: Pictures per pipeline call in deployment, for budgets in time and memory; by default one, or
            the smallest batch of the target.
        max_cache_memory: Most bytes, as a number or as ``"500MB"``, that such a call may take for kept features
            and latents besides the plain pipeline's.
        study_name: By default made of model and budget.
        storage: SQLAlchemy URL of the study, by default SQLite in ``run_dir``.
        run_dir: By default ``runs/<study name>``.
        quiet: Show no progress.

    Raises:
        InputError: an argument cannot be used; nothing was written.
        Interrupted: Ctrl-C; the same call resumes.

    Example:
        >>> result = autotune.tune(budget="40%")  # doctest: +SKIP
        >>> result.policy.id, result.finalists.verdict  # doctest: +SKIP
    """
    if trials < 1:
        raise InputError(f"trials is {trials}; give at least 1")
    if not timeout >= 0:
        raise InputError(f"timeout is {timeout:g} seconds; give 0 or more")
    with Progress(quiet=quiet) as progress:
        setup = prepare(
            pipe,
            budget,
            prompts=prompts,
            held_out=held_out,
            reference=reference,
            scorer=scorer,
            height=height,
            width=width,
            guidance_scale=guidance_scale,
            steps=steps,
            max_steps=max_steps,
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
            target=target,
            call_batch=call_batch,
            max_cache_memory=max_cache_memory,
            on_progress=progress.profiling,
        )
    name = study_name or setup.default_name
    folder = Path(run_dir) if run_dir is not None else Path("runs") / name
    with _quiet_optuna(), without_bars(setup.pipe):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made a run directory ({error.strerror}); choose another") from None
        study = open_study(name, storage or sqlite_url(folder / "study.db"), setup.configuration)
        try:
            with deferred(), Progress(quiet=quiet) as progress:
                keep_outline(setup, folder, study=name, storage=storage)
                result = _run(setup, study, folder, trials, timeout, progress)
                shown = [run.policy for run in result.finalists.podium]
                keep_outline(setup, folder, study=name, storage=storage, policies=shown)
                return result
        except KeyboardInterrupt:
            release_interrupted(study)
            raise Interrupted(folder) from None


def search(
    study: optuna.Study,
    runner: TrialRunner,
    *,
    trials: int,
    timeout: float,
    seed: int,
    progress: Progress,
    pictures: int = 0,
) -> None:
    """Run queued recipes, then candidates of the sampler, until ``trials`` are evaluated or time is up.

    Args:
        study: The study; may hold trials of earlier runs.
        runner: Evaluates one trial.
        trials: Candidates in all, those of earlier runs included.
        timeout: Seconds after which no further candidate begins.
        seed: Decides the candidates.
        progress: Is told of every candidate.
        pictures: Pictures per candidate, for the progress display.
    """
    done = evaluated(study)
    for earlier in done:
        if earlier.value is not None:
            progress.best(earlier.value, earlier.user_attrs["relative_cost"], earlier.user_attrs[POLICY_ID])
    progress.search(max(trials, len(done) + waiting_recipes(study)), len(done), timeout)
    deadline = time.monotonic() + timeout
    while True:
        checkpoint()
        ended = finished(study)
        repeats = sum(1 for _ in takewhile(lambda each: DUPLICATE_OF in each.user_attrs, reversed(ended)))
        enough = len(evaluated(study)) >= trials or repeats >= _REPEATS_UNTIL_EXHAUSTED
        if (enough or time.monotonic() >= deadline) and not waiting_recipes(study):
            return
        study.sampler = sampler_for(seed, len(ended), explore=repeats >= _REPEATS_UNTIL_RANDOM)
        trial = study.ask()
        progress.candidate(trial.number, pictures)
        progress.report(runner.run(trial))


def _run(
    setup: Setup, study: optuna.Study, folder: Path, trials: int, timeout: float, progress: Progress
) -> TuneResult:
    bench = _bench(setup, setup.tuning, "tuning", folder, progress)
    _keep_full_run(study, bench, folder)
    enqueue_recipes(study, [(recipe.name, recipe.proposal.values) for recipe in setup.recipes])
    runner = TrialRunner(study, setup.proposer, bench, folder)
    seed = setup.configuration.seed
    search(
        study,
        runner,
        trials=trials,
        timeout=timeout,
        seed=seed,
        progress=progress,
        pictures=len(setup.tuning.prompts),
    )
    held_out = _bench(setup, setup.held_out, "held-out", folder, progress)
    finalists = _last_round(setup, study, held_out, progress)
    finalists.save(folder / "finalists.json")
    policy = _export(setup, study, finalists)
    policy.save(folder / "policy.json")
    progress.stage("pictures to look at")
    keep_showcase(folder, finalists, held_out, setup.held_out.seeds, setup.pictures)
    previews = tuple(held_out.outcome(run.policy).preview for run in finalists.podium)
    return TuneResult(
        policy=policy,
        baseline=finalists.fewer_steps.policy,
        finalists=finalists,
        study=study,
        run_dir=folder,
        preview_prompts=held_out.prompts[: len(previews[0])],
        previews=previews,
        notes=_notes(setup, policy),
    )


def _bench(setup: Setup, examples: Examples, name: str, folder: Path, progress: Progress) -> Bench:
    cache = folder / "outcomes" / setup.configuration.digest
    count = len(examples.prompts)
    reference = setup.reference
    if reference is None and setup.judges.weights.fd:
        progress.stage("pictures of the full run as reference", len(setup.tuning.prompts))
        make = functools.partial(setup.pictures, setup.full, on_batch=progress.pictures)
        reference = own_reference(
            make,
            setup.judges.distance_network,
            setup.tuning.prompts,
            setup.reference_seed,
            cache / "reference.safetensors",
        )
    progress.stage(f"full run on {count} {name} prompts", count)

    def pictures(policy: Policy) -> Pictures:
        return setup.pictures(policy, examples.prompts, examples.seeds, progress.pictures)

    try:
        return setup.judges.bench(pictures, examples.prompts, reference, setup.full, cache / name)
    except ValueError as error:
        raise InputError(str(error)) from error


def _keep_full_run(study: optuna.Study, bench: Bench, folder: Path) -> None:
    """Once per study: what every trial is compared with, for the dashboard."""
    if _FULL_RUN_GRID in study.user_attrs:
        return
    score = bench.objective.score(bench.full.evaluation)
    study.set_user_attr("full_run_distance", score.distance)
    study.set_user_attr("full_run_alignment", score.alignment)
    grid = folder / "grids" / "full_run.png"
    save_grid(bench.full.preview, grid)
    artifact = upload_artifact(
        artifact_store=artifact_store(folder), file_path=str(grid), study_or_trial=study, mimetype="image/png"
    )
    study.set_user_attr(_FULL_RUN_GRID, artifact)


def _last_round(setup: Setup, study: optuna.Study, bench: Bench, progress: Progress) -> Finalists:
    fewer_steps = setup.recipes[0].proposal.policy
    candidates = best_trials(study, FINALISTS, exclude=fewer_steps)
    progress.stage("the best candidates and fewer steps on held-out prompts", len(bench.prompts))
    trial = next((t.number for t in evaluated(study) if t.user_attrs.get(POLICY_KEY) == fewer_steps.key), None)
    finalists = judge(bench, setup.full, fewer_steps, candidates, setup.pricer.price, fewer_steps_trial=trial)
    # Times under a bound on time are comparable with it.
    wanted = _TIMED_IMAGES if setup.proposer.limits.latency_ms is None else setup.call_batch
    timed = min(wanted, setup.configuration.batch_size, len(bench.prompts))
    progress.stage("measuring time", timed)

    def run(policy: Policy) -> None:
        for _ in setup.pictures(policy, setup.held_out.prompts[:timed], setup.held_out.seeds[:timed]):
            pass

    full, *others = (run.policy for run in finalists.podium)
    device = describe_device(setup.pipe.device).title[:200]
    batch_size = min(timed, setup.configuration.batch_size)
    return finalists.with_times(
        [
            MeasuredTime(
                device=device,
                batch_size=batch_size,
                ms_per_image=round(timing.seconds * 1000 / timed, 3),
                relative=round(timing.relative, 4),
            )
            for timing in time_policies(run, full, others)
        ]
    )


def _export(setup: Setup, study: optuna.Study, finalists: Finalists) -> Policy:
    """The winner with all its records, validated as a whole."""
    winner: Contender = finalists.winner
    cost = PolicyCost(
        flops=winner.cost.flops,
        macs_conv_linear=winner.cost.macs_conv_linear,
        relative=winner.cost.relative,
        cache_bytes=winner.cost.cache_bytes,
        predicted=_predicted(setup, winner.policy),
        measured=(winner.time,) if winner.time else (),
    )
    provenance = Provenance(
        study=study.study_name[:200],
        trial=winner.trial,
        seed=setup.configuration.seed,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={
            "postdiff": autotune.__version__,
            **{package: version(package) for package in ("torch", "diffusers", "optuna")},
        },
    )
    records = {
        "budget": str(setup.budget),
        "cost": cost,
        "quality": finalists.quality(setup.judges, setup.configuration.guidance_scale),
        "provenance": provenance,
    }
    return Policy(**{**dict(winner.policy), **records})


def _predicted(setup: Setup, policy: Policy) -> tuple[PredictedTime, ...]:
    """The time of a call in deployment, where the search knew of a target."""
    profile = setup.deployed.target
    if profile is None:
        return ()
    times = [setup.deployed.price(each, setup.call_batch).latency_ms for each in (policy, setup.full)]
    milliseconds, full = (ms for ms in times if ms is not None)
    return (
        PredictedTime(
            device=profile.device.title[:200],
            dtype=profile.dtype,
            compile=profile.compile,
            batch_size=setup.call_batch,
            ms=round(milliseconds, 3),
            relative=round(milliseconds / full, 4),
            profile=profile.date,
        ),
    )


def _notes(setup: Setup, policy: Policy) -> tuple[str, ...]:
    """Why a bound on time may not be kept in deployment."""
    profile, limit = setup.deployed.target, setup.proposer.limits.latency_ms
    if profile is None or limit is None:
        return ()
    notes = profile.doubts(dtype=str(setup.pipe.dtype).removeprefix("torch."), versions=versions())
    here = describe_device(setup.pipe.device)
    for time_taken in policy.cost.measured if policy.cost else ():
        taken = time_taken.ms_per_image * time_taken.batch_size
        comparable = here.title == profile.device.title and time_taken.batch_size == setup.call_batch
        if comparable and taken > _TOLERATED * limit:
            notes.append(
                f"calls of {time_taken.batch_size} took {taken:.0f} ms and the budget is {limit:.0f} ms: the machine is"
                " slower now than when it was profiled; profile it again and give the file as --target"
            )
    return tuple(notes)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna logs a line for every trial, which the progress display says better.

    It also warns of recipes beyond a narrowed range, of which fewer steps are meant to be one.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Fixed parameter")
            yield
    finally:
        optuna.logging.set_verbosity(before)
