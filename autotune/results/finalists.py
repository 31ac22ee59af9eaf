"""The last round: the best candidates, fewer steps and the full run on prompts and seeds never tuned on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from autotune.core.naming import FEWER_STEPS, FULL_RUN
from autotune.core.records import write_atomically
from autotune.evaluation.evaluator import Evaluator
from autotune.policy import ContenderQuality, Interval, MeasuredTime, Policy, PolicyQuality
from autotune.study.trials import REFINES, policy_of, ranked

if TYPE_CHECKING:
    from autotune import quality
    from autotune.cost import Cost
    from autotune.evaluation.judges import Judges

BETTER, NO_BETTER = "better", "no better"


@dataclass(frozen=True)
class Contender:
    """One run of the last round.

    ``quality`` is held-out; ``trial``, of ``study``, is None for the full run; ``time`` is None where it was not
    measured.
    """

    name: str
    policy: Policy
    cost: Cost
    quality: ContenderQuality
    trial: int | None = None
    study: str | None = None
    time: MeasuredTime | None = None


@dataclass(frozen=True)
class Finalists:
    """Everything the last round found.

    Attributes:
        full: The full run.
        fewer_steps: As many plain steps as the budget pays for.
        candidates: The best policies of the search, by held-out loss, best first; those with an error above the
            ceiling, if there is one, come last and are never better.
        difference: Loss of the best candidate minus that of fewer steps, paired by prompt, with its
            95 % interval; zero where no candidate succeeded. The best of the candidates is chosen on
            the same pictures, which favours it a little.
        verdict: ``"better"`` where the whole interval lies below zero, else ``"no better"``.
        prompts: Different inputs held out, such as prompts.
        images: Pictures made of each run.
    """

    full: Contender
    fewer_steps: Contender
    candidates: tuple[Contender, ...]
    difference: Interval
    verdict: str
    prompts: int
    images: int

    @property
    def better(self) -> bool:
        """Whether a candidate beats fewer steps with confidence."""
        return self.verdict == BETTER

    @property
    def winner(self) -> Contender:
        """What is exported: the best candidate where it is better, else fewer steps."""
        return self.candidates[0] if self.better else self.fewer_steps

    @property
    def headline_runs(self) -> tuple[Contender, ...]:
        """What a reader compares: the full run, fewer steps and, where there is one, the best candidate."""
        return (self.full, self.fewer_steps, *self.candidates[:1])

    def with_times(self, times: Sequence[MeasuredTime]) -> Finalists:
        """The same with the measured time of each run on the :attr:`headline_runs`."""
        full, fewer_steps, *best = (
            replace(run, time=time) for run, time in zip(self.headline_runs, times, strict=True)
        )
        return replace(self, full=full, fewer_steps=fewer_steps, candidates=(*best, *self.candidates[1:]))

    def quality(self, judges: Judges, guidance_scale: float | None) -> PolicyQuality:
        """The record that goes into the exported policy."""
        return PolicyQuality(
            prompts=self.prompts,
            images=self.images,
            scorer=judges.scorer_name and judges.scorer_name[:200],
            network=judges.network_name and judges.network_name[:200],
            estimator=judges.estimator,
            weights={name: weight for name, weight in judges.panel.weights.items() if weight},
            guidance_scale=guidance_scale,
            policy=self.winner.quality,
            full=self.full.quality,
            fewer_steps=self.fewer_steps.quality,
            fewer_steps_count=self.fewer_steps.policy.steps,
            difference=self.difference if self.better else Interval(value=0.0, low=0.0, high=0.0),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.verdict,
            "difference": self.difference.model_dump(),
            "prompts": self.prompts,
            "images": self.images,
            "winner": self.winner.name,
            "contenders": [_document(each) for each in (self.full, self.fewer_steps, *self.candidates)],
        }

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")


@dataclass(frozen=True)
class EvaluatedPolicy:
    """A policy that a trial evaluated."""

    study: str
    trial: int
    policy: Policy


def best_trials(
    studies: Sequence[optuna.Study],
    count: int,
    exclude: Policy | None = None,
    within: Callable[[Policy], bool] = lambda policy: True,
) -> list[EvaluatedPolicy]:
    """The ``count`` candidates with the lowest losses, best first and none twice.

    The best of all that local search derived from one another stands for them, while there are others: they do well or
    badly together, and one that chance favoured brings its neighbours along.

    Args:
        studies: Whose losses mean the same.
        count: How many to find.
        exclude: A policy that is in the last round already, if any.
        within: Whether a policy is within the budget.
    """
    trials = [(trial, study) for study in studies for trial in ranked(study)]
    trials.sort(key=lambda each: (each[0].values[0], each[0].number))
    origins = {study.study_name: _origins(study) for study in studies}
    keys = {exclude.key} if exclude is not None else set()
    kin: set[tuple[str, int]] = set()
    found: list[tuple[bool, EvaluatedPolicy]] = []
    for trial, study in trials:
        candidate = EvaluatedPolicy(study.study_name, trial.number, policy_of(trial))
        if candidate.policy.key in keys or not within(candidate.policy):
            continue
        origin = study.study_name, origins[study.study_name][trial.number]
        found.append((origin in kin, candidate))
        keys.add(candidate.policy.key)
        kin.add(origin)
        if len(kin) == count:
            break
    chosen = sorted(range(len(found)), key=lambda place: found[place][0])[:count]
    return [found[place][1] for place in sorted(chosen)]


def _origins(study: optuna.Study) -> dict[int, int]:
    """Of every trial, that which local search began with; of all others themselves."""
    origins: dict[int, int] = {}
    for trial in study.get_trials(deepcopy=False):
        before = trial.user_attrs.get(REFINES, trial.number)
        origins[trial.number] = origins.get(before, before)
    return origins


def judge(
    evaluator: Evaluator,
    full: Policy,
    fewer_steps: Policy,
    candidates: Sequence[EvaluatedPolicy],
    price: Callable[[Policy], Cost],
    *,
    fewer_steps_trial: int | None = None,
) -> Finalists:
    """Score all runs on ``evaluator``, which must hold prompts and seeds the search has not seen.

    Args:
        evaluator: Scores policies against ``full``.
        full: The full run.
        fewer_steps: Fewer steps at the cost of the candidates.
        candidates: The other runs.
        price: The exact price of a policy.
        fewer_steps_trial: The trial that evaluated fewer steps.
    """

    def contender(name: str, policy: Policy, trial: int | None, study: str | None = None) -> Contender:
        held_out = quality_record(evaluator.objective.interval(evaluator.outcome(policy).evaluation))
        return Contender(name, policy, price(policy), held_out, trial, study)

    def feasible(contender: Contender) -> bool:
        error = contender.quality.error
        return evaluator.objective.feasible(None if error is None else error.value)

    by_loss = sorted(
        (contender(f"trial {each.trial}", each.policy, each.trial, each.study) for each in candidates),
        key=lambda each: (not feasible(each), each.quality.loss.value),
    )
    difference = Interval(value=0.0, low=0.0, high=0.0)
    if by_loss:
        best, baseline = (evaluator.outcome(policy).evaluation for policy in (by_loss[0].policy, fewer_steps))
        difference = interval_record(evaluator.objective.compare(best, baseline))
    return Finalists(
        full=contender(FULL_RUN, full, None),
        fewer_steps=contender(FEWER_STEPS, fewer_steps, fewer_steps_trial),
        candidates=tuple(by_loss),
        difference=difference,
        verdict=BETTER if difference.high < 0 and feasible(by_loss[0]) else NO_BETTER,
        prompts=len(set(evaluator.keys)),
        images=len(evaluator.keys),
    )


def quality_record(intervals: quality.Intervals) -> ContenderQuality:
    """The scores of one run as files hold them."""
    return ContenderQuality(
        loss=interval_record(intervals.loss),
        distance=interval_record(intervals.distance),
        alignment=None if intervals.alignment is None else interval_record(intervals.alignment),
        fidelity=interval_record(intervals.fidelity),
        error=None if intervals.error is None else interval_record(intervals.error),
    )


def interval_record(interval: quality.Interval) -> Interval:
    """An interval as files hold it."""
    # Six digits are more than the interval's own width warrants, and keep the policy file readable.
    value, low, high = (round(number, 6) for number in (interval.estimate, interval.low, interval.high))
    return Interval(value=value, low=low, high=high)


def _document(contender: Contender) -> dict[str, Any]:
    return {
        "name": contender.name,
        "trial": contender.trial,
        "study": contender.study,
        "id": contender.policy.id,
        "policy": contender.policy.to_dict(),
        "cost": asdict(contender.cost),
        "quality": contender.quality.model_dump(),
        "time": contender.time.model_dump() if contender.time else None,
    }
