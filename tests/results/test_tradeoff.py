"""Words say what the intervals say, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.core.errors import InputError
from autotune.policy import ContenderQuality, Interval, Policy
from autotune.quality.verdict import LEAST_PROMPTS
from autotune.results.tradeoff import (
    ARMS,
    BOTH,
    CHEAPER,
    FEWER,
    BudgetLevel,
    Difference,
    Tradeoff,
    Winner,
    read_tradeoff,
    verdict_of,
)

BETTER, WORSE, UNKNOWN = (-0.3, -0.2, -0.1), (0.1, 0.2, 0.3), (-0.1, 0.05, 0.2)
Numbers = tuple[float, float, float]

MANY = 480


def interval(numbers: Numbers) -> Interval:
    low, value, high = numbers
    return Interval(value=value, low=low, high=high)


def winner(loss: float = 0.1) -> Winner:
    nothing = interval((loss - 0.1, loss, loss + 0.1))
    quality = ContenderQuality(loss=nothing, distance=nothing, alignment=nothing, fidelity=nothing)
    policy = Policy(steps=4)
    return Winner(
        study="s", trial=3, id=policy.id, policy=policy, relative=0.2, tuning_loss=loss, quality=quality, candidates=9
    )


def level(
    percent: int, cheaper: Numbers | None, both: Numbers = UNKNOWN, over_cheaper: Numbers = UNKNOWN
) -> BudgetLevel:
    """Cheaper steps against fewer, both against fewer, both against cheaper; None: cheaper steps are not feasible."""
    found = {(CHEAPER, FEWER): cheaper, (BOTH, FEWER): both, (BOTH, CHEAPER): None if cheaper is None else over_cheaper}
    return BudgetLevel(
        budget=f"{percent}%",
        share=percent / 100,
        winners={arm: winner() for arm in ARMS if cheaper is not None or arm != CHEAPER},
        missing={} if cheaper is not None else {CHEAPER: "the cheapest takes 30 %"},
        differences=tuple(
            Difference(a=a, b=b, loss=interval(loss), same=False) for (a, b), loss in found.items() if loss is not None
        ),
    )


def test_wins_losses_and_doubts_are_told_apart_by_budget() -> None:
    levels = [
        level(15, WORSE),
        level(25, UNKNOWN),
        level(40, BETTER),
        level(60, BETTER),
        level(80, BETTER),
        level(100, WORSE),
    ]
    first, second, *_ = verdict_of(levels, MANY)
    assert first == (
        "Cheaper steps alone beat fewer steps from 40 % to 80 %, lose to fewer steps at 15 % and at 100 % and cannot be"
        " told apart from fewer steps at 25 % of the compute."
    )
    assert second == "Both together cannot be told apart from fewer steps from 15 % to 100 % of the compute."


@pytest.mark.parametrize(
    ("cheaper", "said"),
    [
        ((WORSE, UNKNOWN, BETTER), "between 20 % and 60 % of the compute: below it fewer steps are the better choice"),
        ((BETTER, UNKNOWN, WORSE), "between 20 % and 60 % of the compute: below it cheaper steps are the better"),
        ((WORSE, BETTER, WORSE), "no single crossover"),
        (((-0.1, 0.1, 0.3), (-0.3, -0.1, 0.1), (-0.3, -0.1, 0.1)), "near 30 % of the compute, which is not beyond"),
        (((-0.1, 0.1, 0.3), (-0.3, -0.1, 0.1), (-0.1, 0.1, 0.3)), "cross more than once"),
        ((BETTER, BETTER, UNKNOWN), "near 56 %"),
        ((WORSE, UNKNOWN, UNKNOWN), "do not cross within these budgets"),
    ],
)
def test_the_crossover_is_claimed_only_where_intervals_show_it(cheaper: tuple[Numbers, ...], said: str) -> None:
    levels = [level(percent, numbers) for percent, numbers in zip((20, 40, 60), cheaper, strict=True)]
    (crossover,) = [sentence for sentence in verdict_of(levels, MANY) if said in sentence]
    assert ("beyond doubt" in crossover) == ("estimates" in crossover and "once" not in crossover)


def test_too_few_inputs_tell_nothing_apart() -> None:
    (sentence, missing) = verdict_of([level(15, None), level(40, BETTER)], LEAST_PROMPTS - 1)
    assert (
        sentence.startswith(f"{LEAST_PROMPTS - 1} held-out inputs are too few")
        and f"{LEAST_PROMPTS} would be needed" in sentence
    )
    assert "cannot keep to 15 %" in missing


def test_a_way_that_cannot_keep_to_a_budget_is_named_with_the_reason() -> None:
    sentences = verdict_of([level(15, None), level(40, BETTER)], MANY)
    assert sentences[0] == "Cheaper steps alone beat fewer steps at 40 % of the compute."
    assert sentences[-1] == "Cheaper steps alone cannot keep to 15 %: the cheapest takes 30 %."


def test_nothing_is_said_of_a_crossover_where_one_of_the_two_is_missing_everywhere() -> None:
    assert not any("cross" in sentence for sentence in verdict_of([level(15, None), level(20, None)], MANY))


def test_a_study_comes_back_from_its_file_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    levels = (level(15, None), level(40, BETTER))
    found = Tradeoff(
        model="m", full_steps=20, full_flops=10, trials=8, images=8, held_out_images=8, held_out_prompts=8, seed=0,
        scorer="clip", network=None, estimator="kid", levels=levels, verdict=verdict_of(levels, MANY),
    )  # fmt: skip
    path = tmp_path / "explain.json"
    assert read_tradeoff(path) is None
    found.save(path)
    assert read_tradeoff(path) == found
    path.write_text(path.read_text().replace('"levels"', '"rungs"'))
    assert read_tradeoff(path) == found, "what earlier releases wrote"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match="repeat the command with --explain"):
        read_tradeoff(path)
