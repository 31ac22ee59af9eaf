from __future__ import annotations

import pytest

from autotune.core.interval import Interval
from autotune.cost import Cost
from autotune.policy import ContenderQuality, Policy
from autotune.report import ended_early, verdict
from autotune.results.finalists import BETTER, NO_BETTER, Contender, Finalists, SecondOpinion
from autotune.results.ruling import NO_WORSE

SCORE = Interval(value=0.3, low=0.2, high=0.4)
EIGHT = Policy(steps=8)
QUALITY = ContenderQuality(loss=SCORE, distance=SCORE, alignment=SCORE, fidelity=SCORE)


def found(
    difference: Interval,
    *,
    second: Interval | None = None,
    needed: int | None = None,
    steps: Policy = EIGHT,
    better: bool | None = None,
    planned: int | None = None,
) -> Finalists:
    full, fewer, best = (
        Contender(name=name, trial=3, id=steps.id, policy=steps, cost=Cost(4, 2, 0.4, None, 0), quality=QUALITY)
        for name in ("full run", "fewer steps", "trial 3")
    )
    return Finalists.of(
        full,
        fewer,
        [best],
        difference=difference,
        verdict=BETTER if (difference.high < 0 if better is None else better) else NO_BETTER,
        prompts=40 if needed is None else 2,
        images=80,
        prompts_needed=needed,
        second_opinion=None if second is None else SecondOpinion(judge="wavelets", difference=second),
        images_planned=planned,
    )


def between(low: float, value: float, high: float) -> Interval:
    return Interval(value=value, low=low, high=high)


@pytest.mark.parametrize(
    ("low", "value", "high", "words"),
    [
        (-0.3, -0.2, -0.1, "The policy beats 8 plain steps"),
        (-0.3, -0.1, 0.1, "not beyond doubt"),
        (-0.1, 0.1, 0.3, "Nothing found within the budget beats 8 plain steps"),
        (0.0, 0.0, 0.0, "Nothing found within the budget beats 8 plain steps"),
    ],
)
def test_the_verdict_claims_no_more_than_was_seen(low: float, value: float, high: float, words: str) -> None:
    sentence = verdict(found(between(low, value, high)))
    assert words in sentence
    assert f"{value:+.3f} (95 % interval {low:+.3f} to {high:+.3f})" in sentence


def test_of_too_few_prompts_it_says_how_many_would_be_needed() -> None:
    sentence = verdict(found(between(-0.3, -0.2, -0.1), needed=32, better=False), "classes")
    assert sentence.startswith("2 held-out classes are too few") and "32 would be needed" in sentence
    assert "beats 8 plain steps" in sentence and "beyond doubt" not in sentence


@pytest.mark.parametrize(
    ("high", "words"),
    [
        (-0.1, "did not ask, by -0.200"),
        (0.01, "It is no worse before wavelets"),
        (0.1, "It may be worse before wavelets"),
    ],
)
def test_what_the_second_opinion_finds_is_said(high: float, words: str) -> None:
    second = between(-0.4, -0.2, high)
    sentence = verdict(found(between(-0.3, -0.2, -0.1), second=second, better=high < NO_WORSE))
    assert words in sentence and "which the search did not ask" in sentence
    assert sentence.startswith("The policy beats") == (high < NO_WORSE)


def test_a_second_opinion_that_finds_it_worse_says_so() -> None:
    sentence = verdict(found(between(-0.3, -0.2, -0.1), second=between(0.1, 0.2, 0.3), better=False))
    assert "is worse before wavelets" in sentence


def test_other_fewer_steps_than_the_pipelines_own_are_named() -> None:
    sentence = verdict(found(between(-0.3, -0.2, -0.1), steps=Policy(steps=9, timesteps="trailing")))
    assert "beats 9 steps with other noise levels (s9-ts-trailing) at the same cost" in sentence


def test_where_no_candidate_came_as_far_it_says_so() -> None:
    whole = found(between(0.0, 0.0, 0.0), better=False)
    alone = whole.model_copy(update={"contenders": whole.contenders[:2]})
    assert verdict(alone) == (
        "Nothing found within the budget comes near 8 plain steps at the same cost: no candidate was worth all of its"
        " pictures."
    )


def test_that_not_all_pictures_were_made_is_said() -> None:
    better = ended_early(found(between(-0.3, -0.2, -0.1), planned=480))
    assert better == "The last round ended after 80 of 480 pictures of each run: they were enough."
    worse = ended_early(found(between(0.1, 0.2, 0.3), planned=480))
    assert worse is not None and worse.endswith("more would hardly have changed the verdict.")
    assert ended_early(found(between(0.1, 0.2, 0.3))) is None
