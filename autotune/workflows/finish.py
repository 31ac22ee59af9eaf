"""What every search ends with: the policy's file, pictures to look at, and what was found as a whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.artifacts import upload_artifact
from torch import Tensor

from autotune.core.faults import during
from autotune.core.interrupts import checkpoint
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.grid import save_grid, square
from autotune.policy import Policy
from autotune.results.finalists import FILE as FINALISTS
from autotune.results.finalists import Finalists
from autotune.results.gallery import keep_gallery, shown_pictures
from autotune.results.tradeoff import Tradeoff
from autotune.search.trial_runner import artifact_store
from autotune.study.trials import evaluated
from autotune.workflows.export import exported, notes
from autotune.workflows.progress import Progress, clock
from autotune.workflows.search_record import keep_search_record
from autotune.workflows.setup import Setup
from autotune.workflows.spending import Spending, spending

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


def finished(
    setup: Setup,
    study: optuna.Study,
    finalists: Finalists,
    held_out: Evaluator,
    place: Path,
    policy_file: Path,
    storage: str | None,
    progress: Progress,
    studies: Sequence[optuna.Study],
) -> TuneResult:
    """Write what a last round found, and keep what its report is made from.

    Args:
        setup: Of the budget.
        study: Of its search.
        finalists: What was found.
        held_out: Who evaluated it.
        place: Folder of the report.
        policy_file: Of the policy.
        storage: As the user named it.
        progress: Is told of what is done.
        studies: What was spent on all of these is told.
    """
    with during("in the last round"):
        finalists.save(place / FINALISTS)
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
        spent = spending([trial for each in studies for trial in evaluated(each)], len(setup.tuning.rows))
        seconds = progress.laps.seconds
        for what, each in seconds.items():
            _LOG.info("%s took %s", what, clock(each))
        keep_search_record(
            setup,
            place,
            study=study.study_name,
            storage=storage,
            policies=shown,
            exact_share=round(spent.exact_share, 4),
            seconds=seconds,
        )
    return TuneResult(
        policy=policy,
        baseline=finalists.fewer_steps.policy,
        finalists=finalists,
        study=study,
        run_dir=policy_file.parent,
        policy_folder=place,
        policy_file=policy_file,
        noun=setup.noun,
        preview_prompts=tuple(row.label for row in held_out.rows[: len(held_out.full.preview)]),
        preview_inputs=shown_pictures(held_out.rows[: len(held_out.full.preview)], setup.maker.size),
        previews=tuple(held_out.outcome(run.policy).preview for run in finalists.headline_runs),
        spending=spent,
        notes=notes(setup, policy),
    )


def keep_full_run(study: optuna.Study, evaluator: Evaluator, folder: Path) -> None:
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
