"""The search itself: known recipes, the most promising of them together, the sampler's candidates, neighbours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from autotune.core.faults import during
from autotune.core.interrupts import checkpoint, pause
from autotune.search.combination import combination
from autotune.search.local_search import Refiner
from autotune.search.proposer import Proposal, Proposer
from autotune.search.repetitions import plans_of
from autotune.search.samplers import CONDITIONAL, sampler_for
from autotune.search.trial_runner import RELATIVE_COST, Report
from autotune.study.candidate import Candidate, draw
from autotune.study.heartbeat import SURPLUS, WORKER, Watch, close, heartbeat, is_closed, running, surplus
from autotune.study.trials import (
    POLICY_ID,
    Snapshot,
    attributes,
    claim,
    end,
    evaluated,
    finished,
    is_feasible,
    is_repetition,
    requeue_lost_recipes,
    waiting,
    waiting_recipes,
)

_LOG = logging.getLogger(__name__)

REFINED = 1 / 3
"""Share of the trials, and of the time, that goes into neighbours of the best candidate."""

# The model of what is good keeps proposing what it knows once it has converged: look elsewhere then,
# and stop when chance, too, finds nothing new any more.
_REPEATS_UNTIL_RANDOM = 3
_REPEATS_UNTIL_EXHAUSTED = 60
# Before that a candidate is drawn anew so many times.
_DRAWS = 5

# How often to look whether others have finished.
_POLL_SECONDS = 0.5
# How often to look whether somebody else has closed the study.
_LOOK_SECONDS = 5.0


class SearchProgress(Protocol):
    """Who is told how a search gets on, such as :class:`autotune.workflows.progress.Progress`."""

    def search(self, total: int, done: int, timeout: float) -> None:
        """The search begins: ``total`` candidates, ``done`` of them by earlier runs, ``timeout`` seconds at most."""

    def best(self, loss: float, relative_cost: float, policy_id: str) -> None:
        """A candidate (of this run or an earlier one) may be the best so far."""

    def candidate(self, number: int, pictures: int) -> None:
        """Trial ``number`` begins."""

    def cut_off(self, candidates: int, trials: int, timeout: float) -> None:
        """The search ends after ``timeout`` seconds, with fewer candidates than the ``trials`` wanted."""

    def others(self, trials: int) -> None:
        """Nothing is left to begin; other workers are at work on so many trials."""

    def report(self, report: Report) -> None:
        """A trial ended."""

    def elsewhere(self, report: OtherReport) -> None:
        """A trial of another worker ended."""


class Runner(Protocol):
    """Who evaluates trials, such as :class:`autotune.search.trial_runner.TrialRunner`."""

    @property
    def proposer(self) -> Proposer:
        """Turns knobs into policies within the budget."""

    @property
    def pruner(self) -> BasePruner:
        """What the study needs for trials to be pruned."""

    def begin(self, candidate: Candidate, /) -> tuple[optuna.Trial, Proposal | None]:
        """Make a trial of a candidate: the running trial, and what it stands for where that can be told."""

    def run(
        self, trial: optuna.Trial, asked: Mapping[str, int], known: Snapshot, proposal: Proposal | None, /
    ) -> Report:
        """Evaluate a running trial and tell the study."""

    def settle(self) -> None:
        """Wait until all that was told is written."""


@dataclass(frozen=True)
class OtherReport:
    """How a trial of another worker ended, as far as the study says. ``loss`` is None where it failed."""

    trial: int
    worker: str
    loss: float | None
    pruned: bool
    feasible: bool
    relative_cost: float | None
    policy_id: str | None

    @staticmethod
    def of(trial: FrozenTrial) -> OtherReport:
        """What the study says of a trial that has ended."""
        given = attributes(trial)
        return OtherReport(
            trial=trial.number,
            worker=given.get(WORKER, ""),
            loss=trial.values[0] if trial.values else None,
            pruned=trial.state is TrialState.PRUNED,
            feasible=is_feasible(trial),
            relative_cost=given.get(RELATIVE_COST),
            policy_id=given.get(POLICY_ID),
        )


def search(
    study: optuna.Study,
    runner: Runner,
    refiner: Refiner | None,
    *,
    sampler: str,
    trials: int,
    timeout: float,
    seed: int,
    progress: SearchProgress,
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
        timeout: Seconds after which no further candidate begins, but for queued recipes; 0 is for these alone.
        seed: Decides the candidates.
        progress: Is told of every candidate.
        pictures: Pictures per candidate, for the progress display.
    """
    study.pruner = runner.pruner
    done = evaluated(study)
    progress.search(max(trials, len(done) + waiting_recipes(study)), len(done), timeout)
    for earlier in done:
        if earlier.state is TrialState.COMPLETE and is_feasible(earlier):
            given = attributes(earlier)
            progress.best(earlier.values[0], given[RELATIVE_COST], given[POLICY_ID])
    told = {trial.number for trial in done}
    watch, inherited = Watch(study), frozenset(trial.number for trial in running(study))
    started, looked, closed, timed_out = time.monotonic(), -float("inf"), False, False
    known: Snapshot | None = None
    while True:
        checkpoint()
        watch.retry_abandoned()
        if inherited:
            inherited = requeue_lost_recipes(study, inherited)
        now, known = known or Snapshot.of(study), None
        ended, spent = finished(now), time.monotonic() - started
        counted = evaluated(now)
        candidates = len(counted)
        for other in counted:
            if other.number not in told:
                told.add(other.number)
                progress.elsewhere(OtherReport.of(other))
        repeats = sum(1 for _ in takewhile(is_repetition, reversed(ended)))
        if time.monotonic() - looked > _LOOK_SECONDS:
            looked, closed = time.monotonic(), is_closed(study)
        if not closed and (spent >= timeout or repeats >= _REPEATS_UNTIL_EXHAUSTED):
            close(study)
            closed, timed_out = True, spent >= timeout > 0
        over = candidates >= trials or closed
        others = len(running(now))
        if not waiting_recipes(now):
            if over and not others:
                runner.settle()
                if timed_out and candidates < trials:
                    progress.cut_off(candidates, trials, timeout)
                return
            if over or candidates + others >= trials:
                progress.others(others)
                pause(_POLL_SECONDS)
                continue
        sampler_at = partial(sampler_for, sampler, seed, len(ended), explore=repeats >= _REPEATS_UNTIL_RANDOM)
        study.sampler = sampler_at()
        values: Mapping[str, int]
        queued, proposal, candidate = waiting(now), None, None
        late = max(candidates / trials, spent / timeout if timeout else 1) >= 1 - REFINED
        # Nothing that waits is kept from its turn.
        if not queued or (not over and candidates + others + len(queued) < trials):
            candidate = combination(now, runner.proposer, trials, queued=queued, late=late)
        if queued and candidate is None:
            claimed = claim(study, queued)
            if claimed is None:
                continue
            trial, values = claimed
        else:
            candidate = candidate or (refiner.candidate(now) if refiner is not None and late else None)
            candidate = candidate or _drawn(now, runner.proposer, sampler_at, conditional=sampler in CONDITIONAL)
            values = candidate.values
            trial, proposal = runner.begin(candidate)
        begun_meanwhile = max(trial.number - len(now.get_trials()), 0) + len(queued)
        with during(f"in trial {trial.number}"), heartbeat(study, trial):
            if candidates + others + begun_meanwhile >= trials and surplus(study, trial.number, trials):
                trial.set_user_attr(SURPLUS, True)
                end(study, trial, TrialState.FAIL)
                continue
            progress.candidate(trial.number, pictures)
            told.add(trial.number)
            report = runner.run(trial, values, now, proposal)
            known = report.known
            progress.report(report)


def _drawn(
    now: Snapshot, proposer: Proposer, sampler_at: Callable[..., BaseSampler], *, conditional: bool
) -> Candidate:
    """What the sampler proposes at its first attempt that is something new; its last proposal where none is."""
    known = plans_of(now)
    for attempt in range(_DRAWS):
        candidate = draw(sampler_at(attempt=attempt), proposer.space, now.get_trials(), conditional=conditional)
        try:
            proposal = proposer.propose(candidate.values)
        except Exception:
            _LOG.debug("no policy of %s: its trial will say why", candidate.values, exc_info=True)
            break
        if proposal is not None and proposer.plan(proposal.policy) not in known:
            break
    return candidate
