"""The last round: the best candidates, fewer steps and the full run on prompts and seeds never tuned on.

A candidate is *better* where its loss is lower than that of fewer steps beyond doubt, as
:mod:`autotune.quality.simultaneous` has it, before the judges of the search and before a second opinion, if there is
one, which the search did not ask.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from autotune.core.interval import NOTHING, Interval
from autotune.core.naming import FEWER_STEPS, FULL_RUN, PLAIN_STEPS
from autotune.core.records import GrownRecord, Record, read_record, write_atomically
from autotune.cost import Cost
from autotune.policy import ContenderQuality, MeasuredTime, Policy, PolicyQuality
from autotune.policy.words import is_plain
from autotune.quality.verdict import LEAST_PROMPTS
from autotune.results.floor import FloorFound
from autotune.results.ruling import Opinion, Ruling, is_feasible, rule

if TYPE_CHECKING:
    from autotune import quality
    from autotune.evaluation.evaluator import Evaluator
    from autotune.evaluation.judges import Judges

FILE = "finalists.json"

BETTER, NO_BETTER = "better", "no better"


@dataclass(frozen=True)
class EvaluatedPolicy:
    """A policy and the trial that evaluated it; None where none did, as of the full run."""

    study: str | None
    trial: int | None
    policy: Policy


class Contender(GrownRecord):
    """One run of the last round.

    Attributes:
        name: What it is called.
        trial: That evaluated it, of ``study``; None for the full run.
        study: None is the run's own.
        id: Of the policy.
        policy: What it ran under.
        cost: Of one picture.
        quality: Held-out.
        second_opinion: Its loss before a judge that the search did not ask; None where there was none.
        time: None where it was not measured.
    """

    later_keys: ClassVar[frozenset[str]] = frozenset({"second_opinion"})

    name: str
    trial: int | None
    study: str | None = None
    id: str
    policy: Policy
    cost: Cost
    quality: ContenderQuality
    second_opinion: Interval | None = None
    time: MeasuredTime | None = None


class SecondOpinion(Record):
    """What a judge that the search did not ask says of the best candidate.

    Attributes:
        judge: What it is called.
        difference: As that of :class:`Finalists`, in this judge's loss.
    """

    judge: str
    difference: Interval


class Finalists(GrownRecord):
    """Everything the last round found: ``finalists.json``.

    Attributes:
        verdict: ``"better"`` where the whole interval of ``difference`` lies below zero, prompts are enough to say so
            and the second opinion agrees; else ``"no better"``.
        difference: Loss of the best candidate minus that of fewer steps, paired by prompt, with its 95 % interval,
            which allows for the choice of the best on the same pictures and for every moment at which the round might
            have ended; zero where no candidate succeeded.
        prompts: Different inputs held out, such as prompts.
        images: Pictures made of each run.
        images_planned: How many there might have been, where the verdict was known before.
        winner_name: Of the contender that is exported; in the file it is called ``winner``.
        contenders: The full run, fewer steps, and the best policies of the search, by held-out loss, best first, those
            with an error above the ceiling behind the others, without those dropped on earlier pictures; in files of
            earlier releases last the pipeline's own fewer steps, where others are stronger.
        prompts_needed: How many different inputs it takes to call anything better; None where there were enough.
        second_opinion: None where nobody else was asked, or there is no candidate.
        floor: Where the cheapest policy above a floor was sought. That is then the winner, which may be fewer steps or
            the full run; ``difference`` and ``verdict`` are the winner's against fewer steps, and of the candidates
            the first is the winner or, if it is none of them, the nearest to the floor.
    """

    later_keys: ClassVar[frozenset[str]] = frozenset({"prompts_needed", "second_opinion", "images_planned", "floor"})

    verdict: str
    difference: Interval
    prompts: int
    images: int
    winner_name: str = Field(alias="winner")
    contenders: Annotated[tuple[Contender, ...], Field(min_length=2)]
    prompts_needed: int | None = None
    second_opinion: SecondOpinion | None = None
    images_planned: int | None = None
    floor: FloorFound | None = None

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
        prompts_needed: int | None = None,
        second_opinion: SecondOpinion | None = None,
        images_planned: int | None = None,
        floor: FloorFound | None = None,
        winner: str | None = None,
    ) -> Finalists:
        """What a last round found of these runs; ``candidates`` are the best policies of the search, best first.

        ``winner`` names what is exported, where that does not follow from the verdict.
        """
        return Finalists(
            verdict=verdict,
            difference=difference,
            prompts=prompts,
            images=images,
            winner=winner or (candidates[0].name if verdict == BETTER else fewer_steps.name),
            contenders=(full, fewer_steps, *candidates),
            prompts_needed=prompts_needed,
            second_opinion=second_opinion,
            images_planned=images_planned,
            floor=floor,
        )

    @property
    def full(self) -> Contender:
        """The full run."""
        return self.contenders[0]

    @property
    def fewer_steps(self) -> Contender:
        """The strongest policy within the budget that spends less by fewer steps alone."""
        return self.contenders[1]

    @property
    def plain(self) -> Contender | None:
        """As many of the pipeline's own steps as the budget pays for, which earlier releases evaluated besides."""
        last = self.contenders[-1]
        return last if last.name == PLAIN_STEPS else None

    @property
    def candidates(self) -> tuple[Contender, ...]:
        """The best policies of the search, by held-out loss, best first."""
        return self.contenders[2 : -1 if self.plain is not None else None]

    @property
    def better(self) -> bool:
        """Whether a candidate beats fewer steps with confidence."""
        return self.verdict == BETTER

    @property
    def succeeded(self) -> bool:
        """Whether what was asked for is found: a policy better than fewer steps, or cheaper than the full run."""
        return self.better if self.floor is None else self.floor.met

    @property
    def winner(self) -> Contender:
        """What is exported: the best candidate where it is better, else fewer steps; or what holds the floor."""
        return next(each for each in self.contenders if each.name == self.winner_name)

    @property
    def headline_runs(self) -> tuple[Contender, ...]:
        """What a reader compares: the full run, fewer steps and, where there is one, the best candidate."""
        return (self.full, self.fewer_steps, *self.candidates[:1])

    def title_of(self, run: Contender) -> str:
        """What a reader calls a contender."""
        if run.trial is None or run.name in (FEWER_STEPS, PLAIN_STEPS):
            return run.name
        if run.name == self.winner_name:
            return f"policy, {run.name}"
        return f"best policy found, {run.name}" if run == self.candidates[0] and self.floor is None else run.name

    def with_times(self, times: Sequence[MeasuredTime]) -> Finalists:
        """The same with the measured time of each run on the :attr:`headline_runs`."""
        runs = self.headline_runs
        timed = (run.model_copy(update={"time": time}) for run, time in zip(runs, times, strict=True))
        return self.model_copy(update={"contenders": (*timed, *self.contenders[len(runs) :])})

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
            fewer_steps_policy=None if is_plain(self.fewer_steps.policy) else self.fewer_steps.id,
            difference=self.difference if self.better or self.floor is not None else NOTHING,
            certificate=None if self.floor is None else self.floor.certificate,
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
    return read_record(Finalists, path, "repeat the search, which writes it again")


def judge(
    evaluator: Evaluator,
    full: Policy,
    fewer_steps: EvaluatedPolicy,
    candidates: Sequence[EvaluatedPolicy],
    price: Callable[[Policy], Cost],
    *,
    second: Opinion | None = None,
    ruling: Ruling | None = None,
    planned: int | None = None,
    floor: FloorFound | None = None,
    winner: Policy | None = None,
) -> Finalists:
    """Score all runs on ``evaluator``, which must hold prompts and seeds the search has not seen.

    Args:
        evaluator: Scores policies against ``full``.
        full: The full run.
        fewer_steps: The strongest fewer steps at the cost of the candidates.
        candidates: The other runs.
        price: The exact price of a policy.
        second: See :func:`autotune.results.ruling.rule`.
        ruling: What is known of the candidates already; None finds it.
        planned: Pictures of each run that there might have been; None is as many as there are.
        floor: What was found of one, where one was asked for; candidates then stay in their order.
        winner: What is exported, where a floor decides that.
    """
    numbers = [each.trial for each in candidates]

    def name_of(run: EvaluatedPolicy) -> str:
        """Two searches number their trials alike."""
        return f"trial {run.trial}" + (f" of {run.study}" if numbers.count(run.trial) > 1 else "")

    def contender(name: str, run: EvaluatedPolicy) -> Contender:
        evaluation = evaluator.outcome(run.policy).evaluation
        return Contender(
            name=name,
            trial=run.trial,
            study=run.study,
            id=run.policy.id,
            policy=run.policy,
            cost=price(run.policy),
            quality=quality_record(evaluator.objective.interval(evaluation)),
            second_opinion=None if second is None else second.objective.interval(evaluation).loss.rounded(),
        )

    ruling = ruling or rule(evaluator, [each.policy for each in candidates], fewer_steps.policy, second)
    prompts, images = len(set(evaluator.keys)), len(evaluator.keys)
    runs = [(not is_feasible(evaluator, each.policy), contender(name_of(each), each)) for each in candidates]
    if floor is None:
        runs.sort(key=lambda each: (each[0], each[1].quality.loss.value))
    names = {full.key: FULL_RUN, fewer_steps.policy.key: FEWER_STEPS}
    names = {run.policy.key: run.name for _, run in runs} | names
    return Finalists.of(
        full=contender(FULL_RUN, EvaluatedPolicy(None, None, full)),
        fewer_steps=contender(FEWER_STEPS, fewer_steps),
        candidates=[run for _, run in runs],
        difference=NOTHING if ruling.difference is None else ruling.difference.rounded(),
        verdict=BETTER if ruling.better else NO_BETTER,
        prompts=prompts,
        images=images,
        prompts_needed=None if prompts >= LEAST_PROMPTS else LEAST_PROMPTS,
        second_opinion=None
        if second is None or ruling.second is None
        else SecondOpinion(judge=second.name, difference=ruling.second.rounded()),
        images_planned=planned if planned is not None and planned > images else None,
        floor=floor,
        winner=None if winner is None else names[winner.key],
    )


def quality_record(intervals: quality.Intervals) -> ContenderQuality:
    """The scores of one run as files hold them."""
    return ContenderQuality(
        loss=intervals.loss.rounded(),
        distance=intervals.distance.rounded(),
        alignment=None if intervals.alignment is None else intervals.alignment.rounded(),
        fidelity=intervals.fidelity.rounded(),
        error=None if intervals.error is None else intervals.error.rounded(),
    )
