"""One trial: knob values -> policy -> price -> pictures -> score, with everything about it kept in the study."""

from __future__ import annotations

import gc
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import TrialState

from autotune.policy import Policy, policy_from_dict
from autotune.quality import Evaluation
from autotune.runtime.checkpoints import PrefixCache
from autotune.search.bench import Bench
from autotune.search.grid import save_grid
from autotune.search.liveness import concerns_all
from autotune.search.notes import trial_note
from autotune.search.proposals import Proposal, Proposer
from autotune.search.racing import Race
from autotune.search.study import (
    DUPLICATE_OF,
    FAILURE,
    POLICY,
    POLICY_ID,
    POLICY_KEY,
    RECIPE,
    REFINES,
    policy_of,
    ranked,
)

_LOG = logging.getLogger(__name__)

PLAN, PICTURES, SKIPPED = "plan", "pictures", "skipped_flops"
_SHARED = ("distance", "alignment", "fidelity", "loss", "loss_low", "loss_high")
# Enough for two digits of an interval that people look at and nothing is decided by.
_RESAMPLES = 200


@dataclass(frozen=True)
class Report:
    """How a trial ended. ``loss`` is None where it failed, ``reason`` then says why.

    ``pictures`` of it were made; where ``given_up``, these are not all, and the loss is of them alone.
    """

    trial: int
    proposal: Proposal | None
    loss: float | None
    pictures: int = 0
    given_up: bool = False
    duplicate_of: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Result:
    """Scores of a candidate by name, and of how many pictures they are."""

    scores: Mapping[str, float]
    pictures: int
    given_up: bool
    duplicate_of: int | None = None

    @property
    def loss(self) -> float:
        return self.scores["loss"]


class TrialRunner:
    """Runs trials of a study and tells it the results.

    Args:
        study: Receives values, attributes, notes and pictures.
        proposer: Turns a trial's knobs into a policy within the budget.
        bench: Makes and scores pictures of policies.
        run_dir: Gets ``artifacts/`` (Optuna's artifact store) and ``grids/`` (a PNG per policy).
        prefixes: Lets the pictures' calls go on from where others that began alike stood.
        flops: Of the first so many denoiser calls of a policy, for one picture.
        early_stopping: Whether candidates are given up that are not among the better ones, see
            :mod:`autotune.search.racing`. The study needs its pruner.
    """

    def __init__(
        self,
        study: optuna.Study,
        proposer: Proposer,
        bench: Bench,
        run_dir: Path,
        *,
        prefixes: PrefixCache | None = None,
        flops: Callable[[Policy, int], int] = lambda policy, calls: 0,
        early_stopping: bool = True,
    ) -> None:
        self._study = study
        self._proposer = proposer
        self._prefixes = prefixes
        self._flops = flops
        self._bench = bench
        self._race = Race(bench.objective) if early_stopping else None
        self._grids = run_dir / "grids"
        self._artifacts = artifact_store(run_dir)

    def run(self, trial: optuna.Trial) -> Report:
        """Evaluate one asked trial and tell it.

        Whatever goes wrong in one candidate (no memory left, NaN, a bug in a scheduler) fails that
        trial with the reason in its attribute ``failure``; the next one runs. (A full disk, which the next one
        would meet as well, is raised.) A candidate that computes what an earlier trial's did costs nothing: its
        result is told again, with ``duplicate_of`` set. One that is given up is told as pruned, with the loss of
        its first pictures.
        """
        started = time.perf_counter()
        proposal: Proposal | None = None
        try:
            proposal = self._proposal(trial)
            if proposal is None:
                return self._fail(trial, None, "no step count of these knobs is within the budget")
            self._describe(trial, proposal)
            result = self._earlier(proposal) or self._evaluate(trial, proposal)
            if not math.isfinite(result.loss):
                return self._fail(trial, proposal, f"its loss is {result.loss}")
            for name, value in result.scores.items():
                trial.set_user_attr(name, value)
            trial.set_user_attr(PICTURES, result.pictures)
            trial.set_user_attr("seconds", round(time.perf_counter() - started, 3))
            # Both must happen before the trial ends: Optuna refuses them afterwards.
            self._publish(trial, proposal, result)
            twin = self._twin(trial, proposal) if result.duplicate_of is None else result.duplicate_of
            if twin is not None:
                trial.set_user_attr(DUPLICATE_OF, twin)
        except Exception as error:
            if concerns_all(error):
                raise
            _LOG.debug("trial %d failed", trial.number, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        else:
            self._tell(trial, result)
            return Report(trial.number, proposal, result.loss, result.pictures, result.given_up, twin)
        # Outside of the handler, whose traceback keeps the candidate's tensors alive.
        if self._prefixes is not None:
            # Memory may be what was lacking.
            self._prefixes.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self._fail(trial, proposal, failure)

    def _proposal(self, trial: optuna.Trial) -> Proposal | None:
        """What the trial's knobs stand for, or the policy that a local search queued with them."""
        values = self._proposer.space.values_of(trial)
        if REFINES in trial.user_attrs:
            return self._proposer.explicit(policy_from_dict(json.loads(trial.user_attrs[POLICY])), values)
        return self._proposer.propose(values)

    def _evaluate(self, trial: optuna.Trial, proposal: Proposal) -> _Result:
        best = self._best()

        def lost(partial: Evaluation) -> bool:
            return self._race is not None and self._race.lost(trial, partial, best)

        outcome = self._bench.outcome(proposal.policy, lost)
        trial.set_user_attr(SKIPPED, self._skipped(proposal.policy))
        save_grid(outcome.preview, self._grid(proposal.policy))
        made = len(outcome.evaluation.alignment)
        objective = self._bench.objective.head(made)
        loss = objective.interval(outcome.evaluation, resamples=_RESAMPLES).loss
        scores = asdict(objective.score(outcome.evaluation)) | {"loss_low": loss.low, "loss_high": loss.high}
        return _Result(scores, made, given_up=made < len(self._bench.prompts))

    def _skipped(self, policy: Policy) -> int:
        """FLOPs that were not spent on the policy's pictures because their calls began as earlier ones had."""
        if self._prefixes is None:
            return 0
        uses = [use for use in self._prefixes.take_uses() if use.policy == policy.key]
        return sum(self._flops(policy, use.skipped) * use.pictures for use in uses)

    def _earlier(self, proposal: Proposal) -> _Result | None:
        """What the first trial that computed the same scored."""
        plan = self._proposer.plan(proposal.policy)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            if trial.user_attrs.get(PLAN) == plan and DUPLICATE_OF not in trial.user_attrs:
                scores = {name: float(trial.user_attrs[name]) for name in _SHARED}
                given_up = trial.state is TrialState.PRUNED
                return _Result(scores, trial.user_attrs[PICTURES], given_up, trial.number)
        return None

    def _twin(self, trial: optuna.Trial, proposal: Proposal) -> int | None:
        """A trial that computed the same at the same time, on another machine, and counts instead of this one."""
        plan = self._proposer.plan(proposal.policy)
        for other in self._study.get_trials(deepcopy=False):
            if other.number == trial.number or other.user_attrs.get(PLAN) != plan or DUPLICATE_OF in other.user_attrs:
                continue
            sooner = other.state is TrialState.RUNNING and other.number < trial.number
            if sooner or other.state in (TrialState.COMPLETE, TrialState.PRUNED):
                return other.number
        return None

    def _best(self) -> Evaluation | None:
        """All pictures of the best candidate so far, unless another machine holds them."""
        best = next(iter(ranked(self._study)), None)
        kept = None if best is None else self._bench.kept(policy_of(best))
        return None if kept is None else kept.evaluation

    def _tell(self, trial: optuna.Trial, result: _Result) -> None:
        if not result.given_up:
            self._study.tell(trial, result.loss)
            return
        if result.duplicate_of is not None:
            trial.report(result.loss, step=result.pictures)
        self._study.tell(trial, state=TrialState.PRUNED)

    def _fail(self, trial: optuna.Trial, proposal: Proposal | None, reason: str) -> Report:
        _LOG.warning("trial %d failed: %s", trial.number, reason)
        trial.set_user_attr(FAILURE, reason[:2000])
        self._study.tell(trial, state=TrialState.FAIL)
        return Report(trial.number, proposal, None, reason=reason)

    def _describe(self, trial: optuna.Trial, proposal: Proposal) -> None:
        policy, cost = proposal.policy, proposal.cost
        attributes: dict[str, Any] = {
            POLICY: json.dumps(policy.to_dict()),
            POLICY_ID: policy.id,
            POLICY_KEY: policy.key,
            PLAN: self._proposer.plan(policy),
            "values": dict(proposal.values),
            "relative_cost": cost.relative,
            "flops": cost.flops,
            "memory_bytes": cost.memory_bytes,
        }
        if cost.latency_ms is not None:
            attributes["latency_ms"] = round(cost.latency_ms, 3)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)

    def _publish(self, trial: optuna.Trial, proposal: Proposal, result: _Result) -> None:
        from optuna_dashboard import save_note

        grid = self._grid(proposal.policy)
        if grid.is_file():
            upload_artifact(
                artifact_store=self._artifacts, file_path=str(grid), study_or_trial=trial, mimetype="image/png"
            )
        note = trial_note(
            proposal, result.scores, result.pictures, trial.user_attrs.get(RECIPE), given_up=result.given_up
        )
        save_note(trial, note)

    def _grid(self, policy: Policy) -> Path:
        return self._grids / f"{policy.key}.png"


def artifact_store(run_dir: Path) -> FileSystemArtifactStore:
    """The artifact store of a run, made where it is missing."""
    folder = run_dir / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(str(folder))
