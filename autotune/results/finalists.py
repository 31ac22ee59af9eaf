"""The last round: the best candidates, fewer steps and the full run on prompts and seeds never tuned on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import optuna
from pydantic import Field, model_validator

from autotune.core.interval import NOTHING, Interval
from autotune.core.naming import FEWER_STEPS, FULL_RUN
from autotune.core.records import Record, read_record, write_atomically
from autotune.cost import Cost
from autotune.policy import ContenderQuality, MeasuredTime, Policy, PolicyQuality
from autotune.study.trials import REFINES, policy_of, ranked

if TYPE_CHECKING:
    from autotune import quality
    from autotune.evaluation.evaluator import Evaluator
    from autotune.evaluation.judges import Judges

FILE = "finalists.json"

BETTER, NO_BETTER = "better", "no better"


class Contender(Record):
    """One run of the last round.

    Attributes:
        name: What it is called.
        trial: That evaluated it, of ``study``; None for the full run.
        study: None is the run's own.
        id: Of the policy.
        policy: What it ran under.
        cost: Of one picture.
        quality: Held-out.
        time: None where it was not measured.
    """

    name: str
    trial: int | None
    study: str | None = None
    id: str
    policy: Policy
    cost: Cost
    quality: ContenderQuality
    time: MeasuredTime | None = None


class Finalists(Record):
    """Everything the last round found: ``finalists.json``.

    Attributes:
        verdict: ``"better"`` where the whole interval of ``difference`` lies below zero, else ``"no better"``.
        difference: Loss of the best candidate minus that of fewer steps, paired by prompt, with its
            95 % interval; zero where no candidate succeeded. The best of the candidates is chosen on
            the same pictures, which favours it a little.
        prompts: Different inputs held out, such as prompts.
        images: Pictures made of each run.
        winner_name: Of the contender that is exported; in the file it is called ``winner``.
        contenders: The full run, fewer steps, and the best policies of the search, by held-out loss, best first.
    """

    verdict: str
    difference: Interval
    prompts: int
    images: int
    winner_name: str = Field(alias="winner")
    contenders: Annotated[tuple[Contender, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _check_winner(self) -> Self:
        if self.winner_name not in [each.name for each in self.contenders]:
            raise ValueError(f"winner {self.winner_name!r} is none of the contenders")
        return self

    @staticmethod
    def of(
        full: Contender,
        fewer_steps: Contender,
        candidates: Sequence[Contender],
        *,
        difference: Interval,
        verdict: str,
        prompts: int,
        images: int,
    ) -> Finalists:
        """What a last round found of these runs; ``candidates`` are the best policies of the search, best first."""
        return Finalists(
            verdict=verdict,
            difference=difference,
            prompts=prompts,
            images=images,
            winner=candidates[0].name if verdict == BETTER else fewer_steps.name,
            contenders=(full, fewer_steps, *candidates),
        )

    @property
    def full(self) -> Contender:
        """The full run."""
        return self.contenders[0]

    @property
    def fewer_steps(self) -> Contender:
        """As many plain steps as the budget pays for."""
        return self.contenders[1]

    @property
    def candidates(self) -> tuple[Contender, ...]:
        """The best policies of the search, by held-out loss, best first."""
        return self.contenders[2:]

    @property
    def better(self) -> bool:
        """Whether a candidate beats fewer steps with confidence."""
        return self.verdict == BETTER

    @property
    def winner(self) -> Contender:
        """What is exported: the best candidate where it is better, else fewer steps."""
        return next(each for each in self.contenders if each.name == self.winner_name)

    @property
    def headline_runs(self) -> tuple[Contender, ...]:
        """What a reader compares: the full run, fewer steps and, where there is one, the best candidate."""
        return self.contenders[:3]

    def title_of(self, run: Contender) -> str:
        """What a reader calls a contender."""
        if run.trial is None or run.name == self.fewer_steps.name:
            return run.name
        if run.name == self.winner_name:
            return f"policy, {run.name}"
        return f"best policy found, {run.name}" if run == self.contenders[2] else run.name

    def with_times(self, times: Sequence[MeasuredTime]) -> Finalists:
        """The same with the measured time of each run on the :attr:`headline_runs`."""
        timed = (run.model_copy(update={"time": time}) for run, time in zip(self.headline_runs, times, strict=True))
        return self.model_copy(update={"contenders": (*timed, *self.contenders[3:])})

    def quality(self, judges: Judges, guidance_scale: float | None) -> PolicyQuality:
        """The record that goes into the exported policy."""
        return PolicyQuality(
            prompts=self.prompts,
            images=self.images,
            scorer=judges.scorer_name and judges.scorer_name[:200],
            network=judges.network_name and judges.network_name[:200],
            estimator=judges.estimator,
            weights={name: weight for name, weight in asdict(judges.weights).items() if weight},
            guidance_scale=guidance_scale,
            policy=self.winner.quality,
            full=self.full.quality,
            fewer_steps=self.fewer_steps.quality,
            fewer_steps_count=self.fewer_steps.policy.steps,
            difference=self.difference if self.better else NOTHING,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.model_dump(mode="json", by_alias=True)

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")


def read_finalists(path: Path) -> Finalists | None:
    """The last round in a file; None where the search has not come so far.

    Raises:
        InputError: the file is damaged.
    """
    return read_record(Finalists, path, "repeat the search, which writes it anew")


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
        return Contender(
            name=name, trial=trial, study=study, id=policy.id, policy=policy, cost=price(policy), quality=held_out
        )

    by_loss = sorted(
        (contender(f"trial {each.trial}", each.policy, each.trial, each.study) for each in candidates),
        key=lambda each: each.quality.loss.value,
    )
    difference = NOTHING
    if by_loss:
        best, baseline = (evaluator.outcome(policy).evaluation for policy in (by_loss[0].policy, fewer_steps))
        difference = evaluator.objective.compare(best, baseline).rounded()
    return Finalists.of(
        full=contender(FULL_RUN, full, None),
        fewer_steps=contender(FEWER_STEPS, fewer_steps, fewer_steps_trial),
        candidates=by_loss,
        difference=difference,
        verdict=BETTER if difference.high < 0 else NO_BETTER,
        prompts=len(set(evaluator.keys)),
        images=len(evaluator.keys),
    )


def quality_record(intervals: quality.Intervals) -> ContenderQuality:
    """The scores of one run as files hold them."""
    return ContenderQuality(
        loss=intervals.loss.rounded(),
        distance=intervals.distance.rounded(),
        alignment=None if intervals.alignment is None else intervals.alignment.rounded(),
        fidelity=intervals.fidelity.rounded(),
    )
