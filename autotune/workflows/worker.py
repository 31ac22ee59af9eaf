"""Joining a search that somebody else began, on this machine or another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

import autotune
from autotune.core.errors import InputError, Unavailable, out_of_space
from autotune.core.faults import during
from autotune.core.fingerprint import digest
from autotune.core.interrupts import Interrupted, checkpoint, deferred, pause
from autotune.cost import parse_budget
from autotune.evaluation.examples import SEEDS_APART
from autotune.evaluation.second_opinion import NOBODY
from autotune.pipelines.bars import without_bars
from autotune.study.configuration import difference, differs
from autotune.study.heartbeat import WORKER, has_begun, this_worker
from autotune.study.manifest import RUN, Manifest, manifest_of
from autotune.study.storage import holds_studies, open_storage, shown
from autotune.study.trials import CONFIG, check_format, retry_once
from autotune.workflows.evaluators import OUTCOMES, evaluator_for, outcomes_folder
from autotune.workflows.explore import explore
from autotune.workflows.log import logged, worker_log
from autotune.workflows.progress import Progress
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import Setup, prepare
from autotune.workflows.undo import beyond_refusal, make_run_folder, undone_if_refused

_POLL_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class JoinedStudy:
    """A study and how to join it."""

    study: optuna.Study
    manifest: Manifest


def studies_of(url: str, name: str) -> list[JoinedStudy]:
    """The studies of the run ``name``, one for each of its budgets, or the one study of that name.

    Raises:
        InputError: there is none, it cannot be joined from elsewhere, or another version of this package made it.
    """
    with quiet_optuna():
        storage = open_storage(url, retry_once) if holds_studies(url) else None
        everything = [] if storage is None else storage.get_all_studies()
        names = [each.study_name for each in everything if name in (each.study_name, each.user_attrs.get(RUN))]
        if storage is None or not names:
            known = ", ".join(repr(each.study_name) for each in everything[-5:])
            raise InputError(
                f"there is no study {name!r} in {shown(url)}"
                + (f", the latest are {known}" if known else "")
                + "; start it with 'postdiff tune --storage URL --study-name NAME', then start workers"
            )
        found = [optuna.load_study(study_name=each, storage=storage) for each in names]
    joined = [JoinedStudy(study, manifest_of(study)) for study in found]
    for each in joined:
        check_format(each.study)
        if each.manifest.alone:
            raise InputError(f"workers cannot join the study {name!r}: {each.manifest.alone}")
        if each.manifest.version != autotune.__version__:
            raise InputError(
                f"the study {name!r} was made by postdiff {each.manifest.version} and this is"
                f" {autotune.__version__}; install the same version here"
            )
    return joined


def work(pipe: Any | None, joined: Sequence[JoinedStudy], run_dir: Path, *, quiet: bool = False) -> int:
    """Evaluate candidates of the studies, one after the other, until each has what was asked for.

    Args:
        pipe: The pipeline that the studies tune; None where they tune the default model.
        joined: What :func:`studies_of` found.
        run_dir: Gets pictures and ``artifacts/``; a folder that all workers see shows them in one dashboard.
        quiet: Show no progress.

    Returns:
        The number of trials in which this worker had a part.

    Raises:
        InputError: model, prompts or anything else that scores depend on differ from the tuner's; nothing was written.
        RunFailed: the search cannot go on, for a reason that only its pictures could tell; what is done stays.
        Interrupted: Ctrl-C. The trial in hand is put back into the queue.
        Unavailable: the disk is full, or the storage has not answered for minutes.
    """
    with during("while preparing the search"):
        setups = _prepared(pipe, joined)
    first = setups[0]
    try:
        with (
            quiet_optuna(),
            without_bars(first.pipe),
            undone_if_refused() as undo,
        ):
            make_run_folder(run_dir, undo)
            with logged(run_dir / worker_log()), deferred(), Progress(quiet=quiet) as progress:
                _await_opening(joined[0].study, progress)
                undo.contents(run_dir / OUTCOMES)
                undo.contents(outcomes_folder(first, run_dir))
                evaluator = evaluator_for(first, first.tuning, "tuning", run_dir, progress)
                undo.forget()
                with beyond_refusal(), during("in the search"):
                    for setup, each in zip(setups, joined, strict=True):
                        _await_opening(each.study, progress)
                        trials = each.manifest.trials
                        explore(setup, each.study, evaluator, run_dir, trials, float("inf"), _own_seed(setup), progress)
        return sum(_mine(each.study) for each in joined)
    except KeyboardInterrupt:
        raise Interrupted(run_dir) from None
    except OSError as error:
        if not out_of_space(error):
            raise
        raise Unavailable(f"{run_dir} cannot be written to ({error.strerror}); make room and start again") from error


def _prepared(pipe: Any | None, joined: Sequence[JoinedStudy]) -> Sequence[Setup]:
    """What the tuner prepared, if it can be prepared here."""
    budgets = [parse_budget(each.manifest.budget) for each in joined]
    setups = prepare(pipe, budgets, replace(joined[0].manifest.options(), second_opinion=NOBODY))
    for setup, each in zip(setups, joined, strict=True):
        tuned, here = each.study.user_attrs.get(CONFIG, {}), setup.configuration.document()
        if differs(tuned, here):
            raise InputError(
                f"this worker cannot join the study {each.study.study_name!r}: {difference(tuned, here)};"
                " give it the model, device and files that the study was made with"
            )
    return setups


def _await_opening(study: optuna.Study, progress: Progress) -> None:
    """The tuner opens a study when its known recipes are queued; with several budgets, one after the other."""
    announced = False
    while not has_begun(study):
        if not announced:
            progress.stage(f"waiting for the tuner to begin with {study.study_name}")
            announced = True
        checkpoint()
        pause(_POLL_SECONDS)


def _own_seed(setup: Setup) -> int:
    """Another one for every worker: at the same moment they would otherwise propose the same."""
    return int(digest([setup.configuration.seed, this_worker()]), 16) % SEEDS_APART


def _mine(study: optuna.Study) -> int:
    return sum(trial.user_attrs.get(WORKER) == this_worker() for trial in study.get_trials(deepcopy=False))
