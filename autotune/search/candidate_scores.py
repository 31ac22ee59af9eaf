"""What a candidate scores: its pictures, made as far as it is worth, and judged; or what an earlier one found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import TrialState

from autotune.cost import Cost
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.grid import save_grid, square
from autotune.policy import Policy
from autotune.policy.words import computes_everything
from autotune.quality import Evaluation
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.search.diagnosis import CandidateError, Diagnosis
from autotune.search.picture_costs import PictureCosts
from autotune.search.pruning import PairedPruner, spends_less_by_steps_alone
from autotune.search.repetitions import first_of
from autotune.study.trials import Trials, attributes, is_feasible, policy_of, ranked

PICTURES = "pictures"
"""Attribute of a trial: how many pictures its scores are of."""

_SHARED = ("distance", "alignment", "fidelity", "error", "terms", "loss", "loss_low", "loss_high")
# Enough for two digits of an interval that people look at and nothing is decided by.
_RESAMPLES = 200


@dataclass(frozen=True)
class CandidateResult:
    """What a candidate scored.

    Attributes:
        scores: By name; alignment is None without prompts.
        pictures: How many the scores are of.
        pruned: Whether these are not all.
        duplicate_of: The trial that computed the same, where one did.
        skipped_flops: Of shared prefixes of its calls.
        exact_flops: Of exact runs that were made for it.
        feasible: Whether it differs no more from the exact run than is allowed.
    """

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


class CandidateScorer:
    """Evaluates candidates of a study.

    Args:
        evaluator: Makes and scores pictures of policies.
        price: Of a policy.
        prefixes: Lets the pictures' calls go on from where others that began alike stood.
        flops: Of the first so many denoiser calls of a policy, for one picture.
        early_stopping: Whether candidates that are not among the better ones are pruned, see
            :mod:`autotune.search.pruning`.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        price: Callable[[Policy], Cost],
        *,
        prefixes: PrefixCache | None = None,
        flops: Callable[[Policy, int], int] = lambda policy, calls: 0,
        early_stopping: bool = True,
    ) -> None:
        self._evaluator = evaluator
        self._diagnosis = Diagnosis(evaluator, prefixes)
        self._costs = PictureCosts(prefixes, evaluator.exact_runs, price, flops)
        self._paired = PairedPruner(evaluator.objective) if early_stopping else None
        # Pictures of the candidate in hand that have been judged.
        self._made = 0

    @property
    def pruner(self) -> BasePruner:
        """What a study needs for its trials to be pruned."""
        return NopPruner() if self._paired is None else self._paired

    @property
    def ceiling(self) -> float | None:
        """The largest error that is allowed; None allows any."""
        return self._evaluator.objective.panel.ceiling

    def check(self, error: Exception, again: Callable[[], object]) -> None:
        """As :meth:`autotune.search.diagnosis.Diagnosis.check`."""
        self._diagnosis.check(error, again)

    def result(self, trial: optuna.Trial, policy: Policy, known: Trials, grid: Path) -> CandidateResult:
        """Make and judge pictures of a candidate, as many as it is worth.

        Args:
            trial: The candidate's; gets the losses at every look.
            policy: The candidate.
            known: What the study held when the trial began.
            grid: File for a grid of its first pictures.

        Raises:
            CandidateError: It cannot be evaluated, and it alone.
        """
        self._made = 0
        try:
            result = self._evaluate(trial, policy, known, grid)
        except Exception as error:
            self._diagnosis.check(error, lambda: self._diagnosis.evaluate(policy, self._made))
            raise
        if not math.isfinite(result.loss):
            raise CandidateError(f"its loss is {result.loss}")
        return result

    def _evaluate(self, trial: optuna.Trial, policy: Policy, known: Trials, grid: Path) -> CandidateResult:
        best = self._best(known, policy)

        def should_prune(partial: Evaluation) -> bool:
            self._made = len(partial.features)
            if self._paired is not None and self._is_too_far(partial):
                # Its loss is not told to the pruner: it takes no feasible one's place.
                return True
            return self._paired is not None and self._paired.should_prune(trial, partial, best)

        outcome = self._evaluator.outcome(policy, should_prune)
        skipped, exact = self._costs.take(policy)
        save_grid(square(outcome.preview), None, grid)
        made = len(outcome.evaluation)
        objective = self._evaluator.objective.early(made)
        loss = objective.interval(outcome.evaluation, resamples=_RESAMPLES).loss
        score = objective.score(outcome.evaluation)
        scores = asdict(score) | {"loss_low": loss.low, "loss_high": loss.high}
        return CandidateResult(
            scores,
            made,
            pruned=made < len(self._evaluator.rows),
            skipped_flops=skipped,
            exact_flops=exact,
            feasible=objective.feasible(score.error),
        )

    def _is_too_far(self, partial: Evaluation) -> bool:
        """Whether all pictures that are compared with the exact run's are made, and differ more than is allowed."""
        if any(len(errors) < self._evaluator.exact_runs.count for errors in partial.errors.values()):
            return False
        objective = self._evaluator.objective
        return objective.panel.ceiling is not None and not objective.feasible(
            objective.head(len(partial)).score(partial).error
        )

    def _best(self, known: Trials, policy: Policy) -> Evaluation | None:
        """All pictures of the best that a candidate competes with so far, unless another machine holds them.

        Fewer steps compete with one another.
        """
        fewer_steps = computes_everything(policy)
        best = next((each for each in ranked(known) if not fewer_steps or spends_less_by_steps_alone(each)), None)
        kept = None if best is None else self._evaluator.kept(policy_of(best))
        return None if kept is None else kept.evaluation


def earlier_result(plan: str, known: Trials) -> CandidateResult | None:
    """What the first trial that computed the plan scored; None where none did."""
    trial = first_of(plan, known)
    if trial is None:
        return None
    given = attributes(trial)
    # Releases before panels kept fewer.
    scores = {name: given.get(name) for name in _SHARED}
    pruned = trial.state is TrialState.PRUNED
    return CandidateResult(scores, given[PICTURES], pruned, trial.number, feasible=is_feasible(trial))
