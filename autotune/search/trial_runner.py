"""One trial: knob values -> policy -> price -> pictures -> score, with everything about it kept in the study."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import IntDistribution
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from autotune.policy import Policy, policy_from_dict
from autotune.search.candidate_scores import PICTURES, CandidateResult, CandidateScorer, earlier_result
from autotune.search.diagnosis import CandidateError
from autotune.search.proposer import Proposal, Proposer
from autotune.search.repetitions import PLAN, twin_of
from autotune.study.candidate import Candidate
from autotune.study.heartbeat import WORKER, this_worker
from autotune.study.notes import OVER_BUDGET, note_attributes, trial_note
from autotune.study.optuna_internals import set_param, set_study_attr, set_user_attr
from autotune.study.trials import (
    DESCRIPTION,
    DUPLICATE_OF,
    FAILURE,
    POLICY,
    POLICY_ID,
    POLICY_KEY,
    REFINES,
    RESULTS,
    Snapshot,
    Trials,
    begin,
    end,
    recipe_of,
)
from autotune.study.write_queue import WriteQueue
from search_spaces.earlier import completed

_LOG = logging.getLogger(__name__)

RELATIVE_COST, SKIPPED = "relative_cost", "skipped_flops"
EXACT = "exact_flops"
"""Of the exact runs that were made for a candidate, for all of their pictures; others of its intent share them."""

_CONSTRAINT = "error above the ceiling"


@dataclass(frozen=True)
class Report:
    """How a trial ended. ``loss`` is None where it failed, ``reason`` then says why.

    ``pictures`` of it were made; where ``pruned``, these are not all, and the loss is of them alone. One that is not
    ``feasible`` differs too much from the exact run. ``known`` is what the study holds now, where that need not be
    read.
    """

    trial: int
    proposal: Proposal | None
    loss: float | None
    pictures: int = 0
    pruned: bool = False
    duplicate_of: int | None = None
    reason: str | None = None
    feasible: bool = True
    known: Snapshot | None = None


class TrialRunner:
    """Runs trials of a study and tells it the results.

    Args:
        study: Receives values, attributes, notes and pictures.
        proposer: Turns a trial's knobs into a policy within the budget.
        scorer: Makes and judges pictures of candidates. The study needs its :attr:`CandidateScorer.pruner`.
        run_dir: Gets ``artifacts/`` (Optuna's artifact store) and ``grids/`` (a PNG per policy).
    """

    def __init__(self, study: optuna.Study, proposer: Proposer, scorer: CandidateScorer, run_dir: Path) -> None:
        self._study = study
        self.proposer = proposer
        self._scorer = scorer
        self._writes = WriteQueue()
        self._grids = run_dir / "grids"
        self._artifacts = artifact_store(run_dir)

    @property
    def pruner(self) -> BasePruner:
        """What the study needs for trials to be pruned."""
        return self._scorer.pruner

    def knobs(self, trial: optuna.Trial) -> Mapping[str, int]:
        """Ask a trial for the value of every knob."""
        return self.proposer.space.values_of(trial)

    def begin(self, candidate: Candidate) -> tuple[optuna.Trial, Proposal | None]:
        """Make a trial of a candidate.

        Returns:
            The running trial, and what it stands for; None where that cannot be told, and :meth:`run` will say why.
        """
        proposal = None
        try:
            proposal = self._proposal(candidate.values, candidate.user_attrs)
        except Exception:
            _LOG.debug("no policy of %s", candidate.values, exc_info=True)
        known = {} if proposal is None else {DESCRIPTION: self._description(proposal)}
        candidate = replace(candidate, user_attrs={**candidate.user_attrs, **known, WORKER: this_worker()})
        return begin(self._study, candidate), proposal

    def run(
        self, trial: optuna.Trial, asked: Mapping[str, int], known: Trials, proposal: Proposal | None = None
    ) -> Report:
        """Evaluate one running trial and tell it.

        What goes wrong with one candidate alone (NaN, a bug in a scheduler, memory that only its caches need) fails
        that trial with the reason in its attribute ``failure``, and the next one runs. Any other fault is raised: one
        that the full run meets as well, or that the candidate does not meet again. A candidate that computes what an
        earlier trial's did costs nothing: its result is recorded again, with ``duplicate_of`` set. One that is pruned
        is recorded with the loss of its first pictures.

        Args:
            trial: The trial.
            asked: Values of its knobs; others are drawn.
            known: The study, or what it held when the trial began.
            proposal: What the trial stands for, where that is known and written in it.

        Raises:
            Exception: A fault that is none of the candidate's. The trial is still running.
        """
        started = time.perf_counter()
        try:
            values = self._values(trial, asked)
            if proposal is None:
                proposal = self._proposed(values, trial.user_attrs)
                trial.set_user_attr(DESCRIPTION, self._description(proposal))
            # Again, as columns that people look at.
            for name, value in ((POLICY_ID, proposal.policy.id), (RELATIVE_COST, proposal.cost.relative)):
                self._writes.call(set_user_attr, trial, name, value)
            result = earlier_result(self.proposer.plan(proposal.policy), known)
            result = result or self._scorer.result(trial, proposal.policy, known, self._grid(proposal.policy))
            self._writes.settle()
            # Of this trial all but what follows is written, so that what is read now is what others will see.
            if result.pruned and result.duplicate_of is not None:
                trial.report(result.loss, step=result.pictures)
            self._constrain(trial, result)
            self._publish(trial, proposal)
            seen = Snapshot.of(self._study)
            twin = result.duplicate_of
            if twin is None:
                twin = twin_of(trial.number, self.proposer.plan(proposal.policy), seen)
            scores: dict[str, Any] = {
                **result.scores,
                PICTURES: result.pictures,
                SKIPPED: result.skipped_flops,
                EXACT: result.exact_flops,
                "seconds": round(time.perf_counter() - started, 3),
            }
            results = {RESULTS: scores if twin is None else scores | {DUPLICATE_OF: twin}}
            trial.set_user_attr(RESULTS, results[RESULTS])
            # All but the note must be written before the trial ends: Optuna refuses it afterwards.
            self._writes.settle()
        except CandidateError as error:
            return self._fail(trial, proposal, str(error))
        except BaseException:
            self._writes.drop()
            raise
        state = TrialState.PRUNED if result.pruned else TrialState.COMPLETE
        end(self._study, trial, state, result.loss)
        self._note(trial, proposal, result)
        known = seen.ended(trial, state, result.loss, results)
        return Report(
            trial.number,
            proposal,
            result.loss,
            result.pictures,
            result.pruned,
            twin,
            feasible=result.feasible,
            known=known,
        )

    def settle(self) -> None:
        """Wait until all is written."""
        self._writes.settle()

    def _values(self, trial: optuna.Trial, asked: Mapping[str, int]) -> Mapping[str, int]:
        """Values of all knobs of a trial, which become its parameters."""
        knobs = self.proposer.space.knobs
        # One that was queued before some knobs came means what it meant then.
        asked = completed(asked, [knob.name for knob in knobs]) if asked else asked
        if trial.params or asked.keys() != {knob.name for knob in knobs}:
            return self.knobs(trial)
        for knob in knobs:
            ends = IntDistribution(knob.low, knob.high)
            self._writes.call(set_param, trial, knob.name, asked[knob.name], ends)
        return asked

    def _proposal(self, values: Mapping[str, int], origin: Mapping[str, Any]) -> Proposal | None:
        """What knobs stand for, or the policy that a local search derived from one of theirs."""
        if REFINES in origin:
            return self.proposer.explicit(policy_from_dict(origin[DESCRIPTION][POLICY]), values)
        return self.proposer.propose(values)

    def _proposed(self, values: Mapping[str, int], origin: Mapping[str, Any]) -> Proposal:
        """What knobs stand for; CandidateError where that is nothing."""
        try:
            proposal = self._proposal(values, origin)
        except Exception as error:
            self._scorer.check(error, lambda: self._proposal(values, origin))
            raise
        if proposal is None:
            raise CandidateError(OVER_BUDGET)
        return proposal

    def _constrain(self, trial: optuna.Trial, result: CandidateResult) -> None:
        """Say in Optuna's terms whether the trial is feasible, where there is a ceiling."""
        ceiling, error = self._scorer.ceiling, result.scores.get("error")
        if ceiling is not None and error is not None:
            trial.set_constraint(_CONSTRAINT, error - ceiling)

    def _fail(self, trial: optuna.Trial, proposal: Proposal | None, reason: str) -> Report:
        _LOG.warning("trial %d failed: %s", trial.number, reason)
        # Nothing can be written to a trial that has ended.
        self._writes.settle()
        trial.set_user_attr(FAILURE, reason[:2000])
        end(self._study, trial, TrialState.FAIL)
        return Report(trial.number, proposal, None, reason=reason)

    def _description(self, proposal: Proposal) -> dict[str, Any]:
        policy, cost = proposal.policy, proposal.cost
        description: dict[str, Any] = {
            POLICY: policy.to_dict(),
            POLICY_ID: policy.id,
            POLICY_KEY: policy.key,
            PLAN: self.proposer.plan(policy),
            "values": dict(proposal.values),
            RELATIVE_COST: cost.relative,
            "flops": cost.flops,
            "memory_bytes": cost.memory_bytes,
        }
        return description if cost.latency_ms is None else description | {"latency_ms": round(cost.latency_ms, 3)}

    def _publish(self, trial: optuna.Trial, proposal: Proposal) -> None:
        grid = self._grid(proposal.policy)
        if grid.is_file():
            upload = functools.partial(upload_artifact, artifact_store=self._artifacts, mimetype="image/png")
            self._writes.call(functools.partial(upload, file_path=str(grid), study_or_trial=trial))

    def _note(self, trial: optuna.Trial, proposal: Proposal, result: CandidateResult) -> None:
        recipe = recipe_of(trial.user_attrs)
        note = trial_note(
            proposal.policy,
            proposal.cost,
            result.scores,
            result.pictures,
            recipe,
            pruned=result.pruned,
            feasible=result.feasible,
        )
        for name, value in note_attributes(trial, note):
            self._writes.call(set_study_attr, self._study, name, value)

    def _grid(self, policy: Policy) -> Path:
        return self._grids / f"{policy.key}.png"


def artifact_store(run_dir: Path) -> FileSystemArtifactStore:
    """The artifact store of a run, made where it is missing."""
    folder = run_dir / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(str(folder))
