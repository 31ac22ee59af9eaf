"""A run in its folder, from the first file to the last: its studies, its log, what undoes it and what interrupts it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import optuna

from autotune.core.errors import InputError, Unavailable, out_of_space
from autotune.core.faults import during
from autotune.core.interrupts import Interrupted, deferred
from autotune.core.naming import TUNER_LOG
from autotune.cost import Budget
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.inputs import read_rows
from autotune.evaluation.second_opinion import SecondOpinion
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.quality.panel import FIDELITY
from autotune.study.configuration import Configuration
from autotune.study.heartbeat import await_tuner
from autotune.study.manifest import Manifest, manifest_of, publish
from autotune.study.trials import check_studies, evaluated, open_study, sqlite_url
from autotune.workflows.evaluators import OUTCOMES, evaluator_for, outcomes_folder
from autotune.workflows.helpers import Helpers
from autotune.workflows.last_round import Judging
from autotune.workflows.log import logged
from autotune.workflows.progress import Progress, clock
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import Setup, prepare
from autotune.workflows.undo import Undo, make_run_folder, undone_if_refused


def prepared(pipe: Any | None, budgets: Sequence[Budget], options: TuneOptions) -> tuple[Setup, ...]:
    """Everything checked, and nothing written.

    Raises:
        InputError: an argument cannot be used.
        Interrupted: Ctrl-C.
    """
    if options.inputs is not None:
        options = replace(options, inputs=read_rows(options.inputs))
    try:
        with during("while preparing the search"), Progress(quiet=options.quiet) as progress:
            return prepare(pipe, budgets, options, on_progress=progress.profiling)
    except KeyboardInterrupt:
        said = "interrupted while preparing the search; nothing of it is kept yet, repeat the same command to begin"
        raise Interrupted(Path(options.run_dir or "."), said) from None


@dataclass(frozen=True, eq=False)
class Session:
    """A run that has begun.

    Attributes:
        first: What all its searches share.
        folder: Of the run.
        url: Of its studies.
        undo: Takes back what was written, as long as the run may be refused.
        progress: Is told of what is done.
    """

    first: Setup
    folder: Path
    url: str
    undo: Undo
    progress: Progress

    def check(self, wanted: Mapping[str, Configuration]) -> None:
        """Refuse studies that cannot be resumed before any of them is made.

        Raises:
            InputError: one was made with another configuration.
        """
        self.undo.studies(self.url, {*wanted} - check_studies(self.url, wanted))

    def open(self, name: str, setup: Setup, manifest: Manifest, *, alone: bool) -> optuna.Study:
        """Make or resume a study that others may join.

        Args:
            name: Of the study.
            setup: Of its search.
            manifest: Says how to join.
            alone: Whether it is no matter that nobody can.

        Raises:
            InputError: it cannot be resumed, or nobody can join.
        """
        study = open_study(name, self.url, setup.configuration)
        publish(study, manifest)
        if not alone and (why := manifest_of(study).alone) is not None:
            raise InputError(f"no other process can join the search: {why}")
        return study

    def begin(self, timeout: float) -> Evaluator:
        """What evaluates candidates on the tuning inputs; from now on what was written stays.

        Args:
            timeout: Seconds of all searches.

        Raises:
            InputError: judges cannot tell the full run's pictures from bad ones.
        """
        self.undo.contents(self.folder / OUTCOMES)
        self.undo.contents(outcomes_folder(self.first, self.folder))
        search = f"the search, at most {clock(timeout)}," if math.isfinite(timeout) else "the search"
        self.progress.phase("full run", "what it finished is", then=f"{search} and the last round")
        evaluator = evaluator_for(self.first, self.first.tuning, "tuning", self.folder, self.progress)
        self.undo.forget()
        if not self.first.judges.text and not self.first.judges.panel.weight(FIDELITY):
            self.progress.stage(f"the {self.first.noun} have no prompts that differ: alignment is no part of the loss")
        return evaluator

    def helped(
        self, helpers: Helpers | None, run: str, studies: Sequence[optuna.Study], trials: int
    ) -> AbstractContextManager[None]:
        """The helpers, where there are any and something is left to do.

        Args:
            helpers: Start workers.
            run: What these join: a run, or one study.
            studies: What they will work on.
            trials: What is asked for of each.
        """
        if helpers is None or all(len(evaluated(study)) >= trials for study in studies):
            return nullcontext()
        for study in studies:
            # What an earlier run has closed would look done to them before this one opens it again.
            await_tuner(study)
        return helpers(self.url, run, self.folder, self.progress.notice)

    def judging(self) -> Judging:
        """Who judges the last round, with so many of the held-out inputs."""
        first = self.first

        @cache
        def of(count: int) -> tuple[Evaluator, SecondOpinion | None]:
            inputs = first.held_out.head(count)
            evaluator = evaluator_for(first, inputs, "held-out", self.folder, self.progress, first.last_judges)
            return evaluator, SecondOpinion.of(first.second_opinion, evaluator)

        return of


@contextmanager
def session(first: Setup, name: str, options: TuneOptions) -> Iterator[Session]:
    """Begin a run in its folder.

    Args:
        first: What all its searches share.
        name: Of the run.
        options: Say where it is.

    Raises:
        InputError: the folder cannot be made; and what the block raises as long as it may be refused.
        Interrupted: Ctrl-C in the block.
        Unavailable: the disk is full.
    """
    folder = Path(options.run_dir) if options.run_dir is not None else Path("runs") / name
    with quiet_optuna(), without_bars(first.pipe), undone_if_refused() as undo:
        make_run_folder(folder, undo)
        url = options.storage or sqlite_url(folder / "study.db")
        try:
            with logged(folder / TUNER_LOG), deferred(), Progress(quiet=options.quiet) as progress:
                yield Session(first, folder, url, undo, progress)
        except KeyboardInterrupt:
            raise Interrupted(folder, progress.interrupted(folder)) from None
        except OSError as error:
            if not out_of_space(error):
                raise
            raise Unavailable(
                f"{folder} cannot be written to ({error.strerror}); make room, then repeat the same command to go on"
            ) from error
