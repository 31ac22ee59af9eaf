"""One trial: knob values -> policy -> price -> pictures -> score, with everything about it kept in the study."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import IntDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import TrialState

from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.grid import save_grid, square
from autotune.policy import Policy, policy_from_dict
from autotune.quality import Evaluation
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.search.diagnosis import CandidateError, Diagnosis
from autotune.search.picture_costs import PictureCosts
from autotune.search.proposer import Proposal, Proposer
from autotune.search.pruning import PairedPruner
from autotune.search.repetitions import PLAN, first_of, twin_of
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
    attributes,
    begin,
    end,
    is_feasible,
    policy_of,
    ranked,
    recipe_of,
)
from autotune.study.write_queue import WriteQueue

_LOG = logging.getLogger(__name__)

RELATIVE_COST, PICTURES, SKIPPED = "relative_cost", "pictures", "skipped_flops"
EXACT = "exact_flops"
"""Of the exact runs that were made for a candidate, for all of their pictures; others of its intent share them."""

_SHARED = ("distance", "alignment", "fidelity", "error", "terms", "loss", "loss_low", "loss_high")
_CONSTRAINT = "error above the ceiling"
# Enough for two digits of an interval that people look at and nothing is decided by.
_RESAMPLES = 200


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


@dataclass(frozen=True)
class _Result:
    """Scores of a candidate by name, and of how many pictures they are; alignment is None without prompts."""

    scores: Mapping[str, Any]
    pictures: int
    pruned: bool
    duplicate_of: int | None = None
    skipped_flops: int = 0
    exact_flops: int = 0
    feasible: bool = True

    @property
    def loss(self) -> float:
        return float(self.scores["loss"])


class TrialRunner:
    """Runs trials of a study and tells it the results.

    Args:
        study: Receives values, attributes, notes and pictures.
        proposer: Turns a trial's knobs into a policy within the budget.
        evaluator: Makes and scores pictures of policies.
        run_dir: Gets ``artifacts/`` (Optuna's artifact store) and ``grids/`` (a PNG per policy).
        prefixes: Lets the pictures' calls go on from where others that began alike stood.
        flops: Of the first so many denoiser calls of a policy, for one picture.
        early_stopping: Whether candidates that are not among the better ones are pruned, see
            :mod:`autotune.search.pruning`. The study then needs :attr:`pruner`.
    """

    def __init__(
        self,
        study: optuna.Study,
        proposer: Proposer,
        evaluator: Evaluator,
        run_dir: Path,
        *,
        prefixes: PrefixCache | None = None,
        flops: Callable[[Policy, int], int] = lambda policy, calls: 0,
        early_stopping: bool = True,
    ) -> None:
        self._study = study
        self.proposer = proposer
        self._evaluator = evaluator
        self._costs = PictureCosts(prefixes, evaluator.exact_runs, proposer.price, flops)
        self._paired = PairedPruner(evaluator.objective) if early_stopping else None
        self._writes = WriteQueue()
        self._grids = run_dir / "grids"
        self._artifacts = artifact_store(run_dir)
        self._diagnosis = Diagnosis(evaluator, prefixes)
        # Pictures of the candidate in hand that have been judged.
        self._made = 0

    @property
    def pruner(self) -> BasePruner:
        """What the study needs for trials to be pruned."""
        return NopPruner() if self._paired is None else self._paired

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
            result = self._earlier(proposal, known) or self._evaluated(trial, proposal, known)
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
            self._diagnosis.check(error, lambda: self._proposal(values, origin))
            raise
        if proposal is None:
            raise CandidateError(OVER_BUDGET)
        return proposal

    def _evaluated(self, trial: optuna.Trial, proposal: Proposal, known: Trials) -> _Result:
        """What a candidate scores; CandidateError where it cannot be evaluated, and it alone."""
        self._made = 0
        try:
            result = self._evaluate(trial, proposal, known)
        except Exception as error:
            self._diagnosis.check(error, lambda: self._diagnosis.evaluate(proposal.policy, self._made))
            raise
        if not math.isfinite(result.loss):
            raise CandidateError(f"its loss is {result.loss}")
        return result

    def _evaluate(self, trial: optuna.Trial, proposal: Proposal, known: Trials) -> _Result:
        best = self._best(known)

        def should_prune(partial: Evaluation) -> bool:
            self._made = len(partial.features)
            if self._paired is not None and self._is_too_far(partial):
                # Its loss is not told to the pruner: it takes no feasible one's place.
                return True
            return self._paired is not None and self._paired.should_prune(trial, partial, best)

        outcome = self._evaluator.outcome(proposal.policy, should_prune)
        skipped, exact = self._costs.take(proposal.policy)
        save_grid(square(outcome.preview), None, self._grid(proposal.policy))
        made = len(outcome.evaluation)
        objective = self._evaluator.objective.early(made)
        loss = objective.interval(outcome.evaluation, resamples=_RESAMPLES).loss
        score = objective.score(outcome.evaluation)
        scores = asdict(score) | {"loss_low": loss.low, "loss_high": loss.high}
        return _Result(
            scores,
            made,
            pruned=made < len(self._evaluator.rows),
            skipped_flops=skipped,
            exact_flops=exact,
            feasible=objective.feasible(score.error),
        )

    def _is_too_far(self, partial: Evaluation) -> bool:
        """Whether all pictures that are compared with the exact run's are made, and differ more than is allowed."""
        if len(partial) < self._evaluator.exact_runs.count:
            return False
        objective = self._evaluator.objective
        return objective.panel.ceiling is not None and not objective.feasible(
            objective.head(len(partial)).score(partial).error
        )

    def _constrain(self, trial: optuna.Trial, result: _Result) -> None:
        """Say in Optuna's terms whether the trial is feasible, where there is a ceiling."""
        ceiling, error = self._evaluator.objective.panel.ceiling, result.scores.get("error")
        if ceiling is not None and error is not None:
            trial.set_constraint(_CONSTRAINT, error - ceiling)

    def _earlier(self, proposal: Proposal, known: Trials) -> _Result | None:
        """What the first trial that computed the same scored."""
        trial = first_of(self.proposer.plan(proposal.policy), known)
        if trial is None:
            return None
        given = attributes(trial)
        # Releases before panels kept fewer.
        scores = {name: given.get(name) for name in _SHARED}
        pruned = trial.state is TrialState.PRUNED
        return _Result(scores, given[PICTURES], pruned, trial.number, feasible=is_feasible(trial))

    def _best(self, known: Trials) -> Evaluation | None:
        """All pictures of the best candidate so far, unless another machine holds them."""
        best = next(iter(ranked(known)), None)
        kept = None if best is None else self._evaluator.kept(policy_of(best))
        return None if kept is None else kept.evaluation

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

    def _note(self, trial: optuna.Trial, proposal: Proposal, result: _Result) -> None:
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
