"""What a report claims, in words and figures that say no more than was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autotune.core.naming import FEWER_STEPS
from autotune.policy import Interval, MeasuredTime
from autotune.policy.words import in_words, steps_in_words
from autotune.report.run import Run, TrialSummary
from autotune.report.verdict import less_is_enough, verdict
from autotune.results.finalists import Contender, Finalists

NOT_APART = "not told apart from the full run’s"
WORSE, BETTER = "worse than the full run’s", "better than the full run’s"

_GIGA = 1e9
_SAME = 0.03


@dataclass(frozen=True)
class Card:
    """One figure: what it is of, the figure, and a sentence that says what it means."""

    heading: str
    figure: str
    note: str


@dataclass(frozen=True)
class Facts:
    """The head of a report.

    Attributes:
        title: what was found, in a line.
        lead: the same in sentences.
        finished: whether a policy was exported.
        cards: cost, time, quality against the full run and against fewer steps.
        policy: id of what was exported, or of the best candidate so far.
        words: what that policy does.
    """

    title: str
    lead: tuple[str, ...]
    finished: bool
    cards: tuple[Card, ...]
    policy: str | None
    words: str | None


def facts_of(run: Run) -> Facts:
    """What can be said of a run as it is now."""
    if run.last_round is not None and run.policy is not None:
        return _finished(run)
    return _unfinished(run)


def subject(run: Run) -> str:
    """Model and budget: ``emoji-unet within 40%``."""
    if run.search_record is None:
        return run.study.study_name
    return f"{run.search_record.model} within {run.search_record.budget}"


def against_full(loss: Interval) -> str:
    """What the interval of a loss, which is zero for the full run, says."""
    return WORSE if loss.low > 0 else BETTER if loss.high < 0 else NOT_APART


def interval_text(interval: Interval, digits: int = 3, sign: bool = False) -> str:
    """``-0.007 to 0.084``."""
    form = f"{'+' if sign else ''}.{digits}f"
    return f"{interval.low:{form}} to {interval.high:{form}}"


def percent(share: float) -> str:
    return f"{share:.1%}".replace(".0%", "%").replace("%", "\N{NO-BREAK SPACE}%")


def factor(share: float, less: str, more: str) -> str:
    """``2.5 times less``, or more; ``about the same`` within three percent."""
    if abs(share - 1) <= _SAME:
        return "about the same"
    return f"{1 / share:.3g} times {less}" if share < 1 else f"{share:.3g} times {more}"


def _finished(run: Run) -> Facts:
    found = run.last_round
    assert found is not None
    exported, fewer = found.winner, found.fewer_steps
    better, steps = exported.name != FEWER_STEPS, steps_in_words(fewer.policy)
    sure = found.prompts_needed is None
    title = f"{subject(run)}: a policy that beats fewer steps" if better else f"{subject(run)}: take {steps}"
    time = exported.time
    cost = f"{percent(exported.cost.relative)} of the full run’s compute"
    if time is not None:
        cost += f" and {percent(time.relative)} of its time"
    what = "The exported policy makes" if better else f"The exported policy, {steps}, makes"
    lead = (
        f"{what} a picture for {cost}.",
        f"On {found.images} pictures of {found.prompts} {run.noun} that the search never saw its quality is"
        f" {_beyond_doubt(exported.quality.loss, sure)}.",
        verdict(found, run.noun)
        + ("" if better else " So fewer steps were exported: they are the simpler way to spend the same."),
        *filter(None, [None if run.policy is None else less_is_enough(run.policy)]),
    )
    difference = found.difference
    return Facts(
        title=title,
        lead=lead,
        finished=True,
        cards=(
            Card(
                "Compute",
                percent(exported.cost.relative),
                f"of the full run: {exported.cost.flops / _GIGA:,.4g} of {found.full.cost.flops / _GIGA:,.4g} GFLOPs a"
                f" picture, {factor(exported.cost.relative, 'less', 'more')}",
            ),
            _time_card(time, found.full.time),
            Card(
                "Quality against the full run",
                f"{exported.quality.loss.value:+.3f}",
                f"loss, 95 % interval {interval_text(exported.quality.loss, sign=True)}:"
                f" {_beyond_doubt(exported.quality.loss, sure)}; 0 is the full run, lower is better",
            ),
            Card(
                f"Against {steps}",
                f"{difference.value:+.3f}",
                f"loss of the best policy found minus theirs at the same cost, 95 % interval"
                f" {interval_text(difference, sign=True)}: {_told_apart(difference, sure)}",
            ),
            *_second_card(found),
        ),
        policy=exported.id,
        words=in_words(exported.policy),
    )


def _unfinished(run: Run) -> Facts:
    best, count = run.best, len(run.evaluated)
    failed = sum(each.failure is not None for each in run.candidates)
    lead = [
        f"{count} candidate{'s' * (count != 1)} evaluated so far"
        + (f", {len(run.pruned)} pruned" if run.pruned else "")
        + (f", {failed} failed" if failed else "")
        + f". Nothing has been verified on held-out {run.noun} yet, so what leads now need not lead in the end."
    ]
    cards: list[Card] = []
    if best is not None and best.cost is not None and best.loss is not None:
        lead.append(f"Leading: {best.id}.")
        cards.append(Card("Compute of the leader", percent(best.cost), "of the full run’s FLOPs"))
        cards.append(_so_far("Loss of the leader", best, run.noun))
        fewer = next((each for each in run.evaluated if each.recipe == FEWER_STEPS), None)
        if fewer is not None:
            cards.append(_so_far("Loss of fewer steps", fewer, run.noun))
    return Facts(
        title=f"{subject(run)}: the search is not finished",
        lead=tuple(lead),
        finished=False,
        cards=tuple(cards),
        policy=best.id if best else None,
        words=in_words(run.policy_of(best)) if best else None,
    )


def _so_far(heading: str, candidate: TrialSummary, noun: str) -> Card:
    between = "" if candidate.low is None else f", 95 % interval {candidate.low:+.3f} to {candidate.high:+.3f}"
    return Card(heading, f"{candidate.loss:+.3f}", f"on tuning {noun}{between}; 0 is the full run, lower is better")


def _time_card(time: MeasuredTime | None, full: MeasuredTime | None) -> Card:
    if time is None:
        return Card("Time", "–", "was not measured")
    of = f"{time.ms_per_image:,.4g} of {full.ms_per_image:,.4g} ms" if full else f"{time.ms_per_image:,.4g} ms"
    return Card(
        "Time",
        percent(time.relative),
        f"of the full run: {of} a picture, {factor(time.relative, 'faster', 'slower')}, in batches of"
        f" {time.batch_size} on {time.device}",
    )


def _second_card(found: Finalists) -> tuple[Card, ...]:
    second, sure = found.second_opinion, found.prompts_needed is None
    if second is None:
        return ()
    note = (
        f"the same in the loss of {second.judge}, which the search did not ask, 95 % interval"
        f" {interval_text(second.difference, sign=True)}: {_told_apart(second.difference, sure)}"
    )
    return (Card("Second opinion", f"{second.difference.value:+.3f}", note),)


def _beyond_doubt(loss: Interval, sure: bool) -> str:
    """Where inputs are too few to be ``sure`` of anything, nothing is told apart."""
    said = against_full(loss)
    return said if said == NOT_APART else f"{said}, beyond doubt" if sure else NOT_APART


def _told_apart(difference: Interval, sure: bool) -> str:
    if not sure:
        return "not told apart"
    if difference.high < 0:
        return "better beyond doubt"
    return "worse beyond doubt" if difference.low > 0 else "not told apart"


@dataclass(frozen=True)
class Line:
    """One run of the last round in a table, every figure written out; empty what was not measured."""

    name: str
    id: str
    steps: int
    compute: str
    time: str
    loss: str
    loss_interval: str
    distance: str
    distance_interval: str
    alignment: str
    alignment_interval: str
    second: str
    second_interval: str
    error: str
    error_interval: str
    exported: bool


def lines_of(run: Run) -> tuple[Line, ...]:
    """The runs of the last round."""
    if run.last_round is None:
        return ()
    last = run.last_round
    return tuple(_line(each, last.title_of(each), each.name == last.winner_name) for each in last.contenders)


def _line(run: Contender, name: str, exported: bool) -> Line:
    scores = run.quality
    return Line(
        name=name,
        id=run.id,
        steps=run.policy.steps,
        compute=percent(run.cost.relative),
        time=percent(run.time.relative) if run.time else "–",
        loss=f"{scores.loss.value:.3f}",
        loss_interval=interval_text(scores.loss),
        distance=f"{scores.distance.value:.3f}",
        distance_interval=interval_text(scores.distance),
        alignment="" if scores.alignment is None else f"{scores.alignment.value:.3f}",
        alignment_interval="" if scores.alignment is None else interval_text(scores.alignment),
        second="" if run.second_opinion is None else f"{run.second_opinion.value:.3f}",
        second_interval="" if run.second_opinion is None else interval_text(run.second_opinion),
        error="" if scores.error is None else f"{scores.error.value:.3f}",
        error_interval="" if scores.error is None else interval_text(scores.error),
        exported=exported,
    )


def document(run: Run, importance: Mapping[str, float]) -> dict[str, Any]:
    """The facts as JSON has them."""
    facts = facts_of(run)
    last = run.last_round
    return {
        "study": run.study.study_name,
        "finished": facts.finished,
        "title": facts.title,
        "lead": list(facts.lead),
        "policy": facts.policy,
        "words": facts.words,
        "budget": run.search_record.budget if run.search_record else run.config.get("budget"),
        "evaluated": len(run.evaluated),
        "pruned": len(run.pruned),
        "failed": sum(each.failure is not None for each in run.candidates),
        "last_round": None
        if last is None
        else last.model_dump(mode="json", by_alias=True, exclude={"contenders": {"__all__": {"policy"}}}),
        "candidates": [asdict(each) for each in run.candidates],
        "importance": dict(importance),
        "fewer_or_cheaper_steps": None if run.tradeoff is None else list(run.tradeoff.verdict),
    }
