"""What a report claims, in words and figures that say no more than was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autotune.core.naming import FEWER_STEPS, FULL_RUN
from autotune.policy import Interval, MeasuredTime
from autotune.policy.words import floor_in_words, in_words, steps_in_words
from autotune.report.floor import floor_outcome
from autotune.report.run import Run, TrialSummary
from autotune.report.verdict import ended_early, less_is_enough, verdict
from autotune.results.finalists import Contender, Finalists

NOT_APART = "we cannot tell it from the full run"
WORSE, BETTER = "worse than the full run", "better than the full run"

_GIGA = 1e9
_SAME = 0.03

# A difference in a few words, and as the end of a sentence.
_WORDS = {NOT_APART: "no difference seen", WORSE: "worse", BETTER: "better"}
_QUALITY = {
    NOT_APART: f", and in quality {NOT_APART}",
    WORSE: f", but their quality is {WORSE}’s",
    BETTER: f", and their quality is {BETTER}’s",
}


@dataclass(frozen=True)
class Card:
    """One finding: what it is of, the finding in a few words, and a sentence with the figures behind it."""

    heading: str
    figure: str
    note: str


@dataclass(frozen=True)
class Facts:
    """The head of a report.

    Attributes:
        title: what was found, in a line.
        lead: the same in sentences, the first one plain.
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
    """Model and budget: ``emoji-unet within 40%``; the model alone where a floor decides."""
    if run.search_record is None:
        return run.study.study_name
    if run.last_round is not None and run.last_round.floor is not None:
        return run.search_record.model
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


def factor(share: float, less: str, more: str, same: str = "about the same") -> str:
    """``2.5 times less``, or more; ``same`` within three percent."""
    if abs(share - 1) <= _SAME:
        return same
    times = max(share, 1 / share)
    # 2.2, but 1.04.
    return f"{round(times, 1 if times >= 1.1 else 2):g} times {less if share < 1 else more}"


def _finished(run: Run) -> Facts:
    found = run.last_round
    assert found is not None
    exported, fewer = found.winner, found.fewer_steps
    better, steps = exported.name != FEWER_STEPS, steps_in_words(fewer.policy)
    sure = found.prompts_needed is None
    loss, difference = exported.quality.loss, found.difference
    title = f"{subject(run)}: a policy that beats fewer steps" if better else f"{subject(run)}: take {steps}"
    if found.floor is not None:
        title = f"{subject(run)}: {floor_outcome(found, found.floor)}"
    time = exported.time
    cost = f"{percent(exported.cost.relative)} of the full run’s compute"
    if time is not None:
        cost += f" and {percent(time.relative)} of its time"
    policy = "The exported policy" if better else f"The exported policy, {steps},"
    if exported.name == FULL_RUN:
        policy = "The exported policy, the full run,"
    lead = (
        f"{policy} makes pictures {_gain(exported)}{_QUALITY[_seen(loss, sure)]}.",
        f"A picture takes {cost}; its quality is that of {found.images} pictures of {found.prompts} {run.noun} that the"
        " search never saw.",
        verdict(found, run.noun)
        + (
            ""
            if better or found.floor is not None
            else " So fewer steps were exported: they are the simpler way to spend the same."
        ),
        *filter(None, [ended_early(found), None if run.policy is None else less_is_enough(run.policy)]),
    )
    return Facts(
        title=title,
        lead=lead,
        finished=True,
        cards=(
            Card(
                "Compute",
                factor(exported.cost.relative, "less", "more"),
                f"{percent(exported.cost.relative)} of the full run: {exported.cost.flops / _GIGA:,.4g} of"
                f" {found.full.cost.flops / _GIGA:,.4g} GFLOPs a picture",
            ),
            _time_card(time, found.full.time),
            Card(
                "Quality against the full run",
                _WORDS[_seen(loss, sure)],
                f"{_capital(_beyond_doubt(loss, sure))}: loss {loss.value:+.3f}, 95 % interval"
                f" {interval_text(loss, sign=True)}; 0 is the full run, lower is better",
            ),
            Card(
                f"Against {steps}",
                _WORDS[_seen(difference, sure)],
                f"Loss of the {'best policy found' if found.floor is None else 'exported policy'} minus theirs at the"
                f" same cost: {difference.value:+.3f}, 95 % interval {interval_text(difference, sign=True)}; lower is"
                " better",
            ),
            *_floor_card(found),
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
        return Card("Time", "–", "Was not measured")
    of = f"{time.ms_per_image:,.4g} of {full.ms_per_image:,.4g} ms" if full else f"{time.ms_per_image:,.4g} ms"
    return Card(
        "Time",
        factor(time.relative, "faster", "slower"),
        f"{percent(time.relative)} of the full run: {of} a picture, in batches of {time.batch_size} on {time.device}",
    )


def _floor_card(found: Finalists) -> tuple[Card, ...]:
    floor = found.floor
    if floor is None:
        return ()
    within = "" if floor.budget is None else f", within {floor.budget}"
    figure = "certified" if floor.met else "not certified"
    return (Card(f"Floor: {floor_in_words(floor.certificate)}{within}", figure, verdict(found)),)


def _second_card(found: Finalists) -> tuple[Card, ...]:
    second, sure = found.second_opinion, found.prompts_needed is None
    if second is None:
        return ()
    note = (
        f"The same in the loss of {second.judge}, which the search did not ask: {second.difference.value:+.3f}, 95 %"
        f" interval {interval_text(second.difference, sign=True)}"
    )
    return (Card("Second opinion", _WORDS[_seen(second.difference, sure)], note),)


def _gain(exported: Contender) -> str:
    """What a user gains of a policy: time, or compute where no time was measured."""
    if exported.time is not None:
        return factor(exported.time.relative, "faster", "slower", "about as fast")
    return f"with {factor(exported.cost.relative, 'less', 'more')} compute"


def _seen(difference: Interval, sure: bool) -> str:
    """Where inputs are too few to be ``sure`` of anything, nothing is told apart."""
    return against_full(difference) if sure else NOT_APART


def _beyond_doubt(loss: Interval, sure: bool) -> str:
    said = _seen(loss, sure)
    return said if said == NOT_APART else f"{said}, beyond doubt"


def _capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}"


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
