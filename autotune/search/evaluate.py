"""One trial: knob values -> policy -> price -> pictures -> score, with everything about it kept in the study."""

from __future__ import annotations

import gc
import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import FrozenTrial, TrialState

from autotune.policy import Policy
from autotune.search.bench import Bench
from autotune.search.grid import save_grid
from autotune.search.notes import trial_note
from autotune.search.proposals import Proposal, Proposer
from autotune.search.study import DUPLICATE_OF, FAILURE, POLICY, POLICY_ID, POLICY_KEY, RECIPE

_LOG = logging.getLogger(__name__)

_SHARED = ("distance", "alignment", "fidelity", "loss", "loss_low", "loss_high")
# Enough for two digits of an interval that people look at and nothing is decided by.
_RESAMPLES = 200


@dataclass(frozen=True)
class Report:
    """How a trial ended. ``loss`` is None where it failed, ``reason`` then says why."""

    trial: int
    proposal: Proposal | None
    loss: float | None
    duplicate_of: int | None = None
    reason: str | None = None


class TrialRunner:
    """Runs trials of a study and tells it the results.

    Args:
        study: Receives values, attributes, notes and pictures.
        proposer: Turns a trial's knobs into a policy within the budget.
        bench: Makes and scores pictures of policies.
        run_dir: Gets ``artifacts/`` (Optuna's artifact store) and ``grids/`` (a PNG per policy).
    """

    def __init__(self, study: optuna.Study, proposer: Proposer, bench: Bench, run_dir: Path) -> None:
        self._study = study
        self._proposer = proposer
        self._bench = bench
        self._grids = run_dir / "grids"
        self._artifacts = artifact_store(run_dir)

    def run(self, trial: optuna.Trial) -> Report:
        """Evaluate one asked trial and tell it.

        Whatever goes wrong in one candidate (no memory left, NaN, a bug in a scheduler) fails that
        trial with the reason in its attribute ``failure``; the next one runs. A policy that an
        earlier trial evaluated costs nothing: its value is told again, with ``duplicate_of`` set.
        """
        started = time.perf_counter()
        proposal: Proposal | None = None
        try:
            values = self._proposer.space.values_of(trial)
            proposal = self._proposer.propose(values)
            if proposal is None:
                return self._fail(trial, None, "no step count of these knobs is within the budget")
            self._describe(trial, proposal)
            earlier = self._find(proposal.policy)
            if earlier is not None:
                trial.set_user_attr(DUPLICATE_OF, earlier.number)
                results = {name: float(earlier.user_attrs[name]) for name in _SHARED}
            else:
                outcome = self._bench.outcome(proposal.policy)
                score = self._bench.objective.score(outcome.evaluation)
                if not math.isfinite(score.loss):
                    return self._fail(trial, proposal, f"its loss is {score.loss}")
                loss = self._bench.objective.interval(outcome.evaluation, resamples=_RESAMPLES).loss
                results = asdict(score) | {"loss_low": loss.low, "loss_high": loss.high}
                save_grid(outcome.preview, self._grid(proposal.policy))
            for name, value in results.items():
                trial.set_user_attr(name, value)
            trial.set_user_attr("seconds", round(time.perf_counter() - started, 3))
            # Both must happen before the trial ends: Optuna refuses them afterwards.
            self._publish(trial, proposal, results)
        except Exception as error:
            _LOG.debug("trial %d failed", trial.number, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        else:
            self._study.tell(trial, results["loss"])
            return Report(trial.number, proposal, results["loss"], None if earlier is None else earlier.number)
        # Outside of the handler, whose traceback keeps the candidate's tensors alive.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self._fail(trial, proposal, failure)

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
            "values": dict(proposal.values),
            "relative_cost": cost.relative,
            "flops": cost.flops,
            "memory_bytes": cost.memory_bytes,
        }
        if cost.latency_ms is not None:
            attributes["latency_ms"] = round(cost.latency_ms, 3)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)

    def _find(self, policy: Policy) -> FrozenTrial | None:
        """The first trial that succeeded with the same policy."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial.user_attrs.get(POLICY_KEY) == policy.key:
                return trial
        return None

    def _publish(self, trial: optuna.Trial, proposal: Proposal, results: dict[str, float]) -> None:
        from optuna_dashboard import save_note

        grid = self._grid(proposal.policy)
        if grid.is_file():
            upload_artifact(
                artifact_store=self._artifacts, file_path=str(grid), study_or_trial=trial, mimetype="image/png"
            )
        pictures = len(self._bench.prompts)
        save_note(trial, trial_note(proposal, results, pictures, trial.user_attrs.get(RECIPE)))

    def _grid(self, policy: Policy) -> Path:
        return self._grids / f"{policy.key}.png"


def artifact_store(run_dir: Path) -> FileSystemArtifactStore:
    """The artifact store of a run, made where it is missing."""
    folder = run_dir / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(str(folder))
