"""Fewer steps or cheaper steps? What the tradeoff study found, as data and in words that claim no more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field

from autotune.core.naming import FEWER_STEPS
from autotune.core.records import Record, read_record, write_atomically
from autotune.policy import ContenderQuality, Interval, Policy
from autotune.quality.verdict import LEAST_PROMPTS

FILE = "explain.json"

# What files of earlier releases call the levels.
_EARLIER = "rungs"

FEWER, CHEAPER, BOTH = FEWER_STEPS, "cheaper steps", "both"
ARMS = (FEWER, CHEAPER, BOTH)
"""The last may take what the others find."""

PAIRS = ((CHEAPER, FEWER), (BOTH, FEWER), (BOTH, CHEAPER))
"""Which arms are compared."""

_NAMES = {FEWER: "fewer steps", CHEAPER: "cheaper steps alone", BOTH: "both together"}


class Winner(Record):
    """The best policy of one arm within one budget.

    Attributes:
        study, trial: that evaluated it.
        id: of the policy.
        relative: its FLOPs as a share of the full run's.
        tuning_loss: what it was chosen by, on tuning prompts; lower than the truth, as the best of many is.
        quality: on held-out prompts, which had no part in the choice.
        candidates: evaluated of this arm within this budget.
    """

    study: str
    trial: int
    id: str
    policy: Policy
    relative: float
    tuning_loss: float
    quality: ContenderQuality
    candidates: int


class Difference(Record):
    """Two arms within one budget: held-out loss of the winner of ``a`` minus that of ``b``, paired by prompt.

    Attributes:
        loss: with the 95 % interval of this pair alone: of twenty pairs of equals one will seem to differ.
        same: whether both winners run the same.
    """

    a: str
    b: str
    loss: Interval
    same: bool

    @property
    def sign(self) -> int:
        """-1 where ``a`` is better beyond doubt, 1 where ``b`` is, else 0."""
        return (self.loss.low > 0) - (self.loss.high < 0)


class BudgetLevel(Record):
    """Everything about one budget.

    Attributes:
        share: of the full run's FLOPs.
        winners: by arm.
        missing: why an arm has no winner, by arm.
        differences: between the arms that have one.
    """

    budget: str
    share: float
    winners: dict[str, Winner]
    missing: dict[str, str]
    differences: tuple[Difference, ...]

    def difference(self, a: str, b: str) -> Difference | None:
        """``a`` against ``b``, if both have a winner."""
        return next((each for each in self.differences if (each.a, each.b) == (a, b)), None)


class Tradeoff(Record):
    """The best of three ways to spend less, over budgets: fewer steps, cheaper steps, both.

    Attributes:
        model: its name, for people.
        full_steps, full_flops: of the full run, for one picture.
        trials: candidates of every arm and budget besides known recipes and what other searches found.
        images: most tuning pictures a candidate.
        held_out_images, held_out_prompts: what winners are compared on.
        seed: of the searches and the pictures.
        scorer: image-text model that judged, if one did.
        network: what the distance was taken in; None is the scorer.
        estimator: of the distance.
        noun: what the inputs are: prompts, classes, seeds or anything else.
        levels: growing budgets.
        verdict: the result in sentences.
    """

    format: Literal["postdiff-answer"] = "postdiff-answer"
    version: Literal[1] = 1
    model: str
    full_steps: int
    full_flops: int
    trials: int
    images: int
    held_out_images: int
    held_out_prompts: int
    seed: int
    scorer: str | None
    network: str | None
    estimator: str
    noun: str = "prompts"
    levels: tuple[BudgetLevel, ...] = Field(validation_alias=AliasChoices("levels", _EARLIER))
    verdict: tuple[str, ...]

    @property
    def enough(self) -> bool:
        """Whether held-out inputs are enough to call any difference beyond doubt."""
        return self.held_out_prompts >= LEAST_PROMPTS

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_atomically(path, self.model_dump_json(indent=1) + "\n")


def read_tradeoff(path: Path) -> Tradeoff | None:
    """The tradeoff study in a file; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    return read_record(Tradeoff, path, "repeat the command with --explain, which writes it again")


def verdict_of(levels: Sequence[BudgetLevel], inputs: int) -> tuple[str, ...]:
    """What the differences say, sentence by sentence: each pair of arms, then the crossover.

    Args:
        levels: Growing budgets.
        inputs: Different ones that were held out.
    """
    sentences: list[str | None] = [_compared(a, b, levels) for a, b in PAIRS] + [_crossover(levels)]
    if inputs < LEAST_PROMPTS:
        sentences = [f"{inputs} held-out inputs are too few to tell anything apart; {LEAST_PROMPTS} would be needed."]
    missing = [
        f"{_NAMES[arm].capitalize()} cannot keep to {level.budget.replace('%', ' %')}: {why}."
        for level in levels
        for arm, why in level.missing.items()
    ]
    return tuple(each for each in (*sentences, *missing) if each)


def share_text(share: float) -> str:
    """``12.5 %``."""
    return f"{100 * share:.4g} %"


def _compared(a: str, b: str, levels: Sequence[BudgetLevel]) -> str | None:
    """Where ``a`` beats ``b``, where it loses and where nobody knows; budgets without one of the two are left out."""
    signs = [None if (found := level.difference(a, b)) is None else found.sign for level in levels]
    if all(sign is None for sign in signs):
        return None
    words = {-1: f"beat {_NAMES[b]}", 1: f"lose to {_NAMES[b]}", 0: f"cannot be told apart from {_NAMES[b]}"}
    parts = [f"{words[sign]} {_where(levels, signs, sign)}" for sign in (-1, 1, 0) if sign in signs]
    return f"{_NAMES[a].capitalize()} {_joined(parts)} of the compute."


def _where(levels: Sequence[BudgetLevel], signs: Sequence[int | None], sign: int) -> str:
    """``at 15 % and from 40 % to 80 %``: neighbouring budgets with the same sign make a range."""
    places = []
    for value, group in groupby(zip(levels, signs, strict=True), key=lambda each: each[1]):
        run = [share_text(level.share) for level, _ in group]
        if value == sign:
            places.append(f"at {run[0]}" if len(run) == 1 else f"from {run[0]} to {run[-1]}")
    return _joined(places)


def _crossover(levels: Sequence[BudgetLevel]) -> str | None:
    """Where cheaper steps alone take over from fewer steps, or the other way round, as far as that can be said."""
    pairs = [(level.share, found) for level in levels if (found := level.difference(CHEAPER, FEWER)) is not None]
    if not pairs:
        return None
    cheaper = [share for share, found in pairs if found.sign < 0]
    fewer = [share for share, found in pairs if found.sign > 0]
    for lower, upper, below, above in ((fewer, cheaper, FEWER, CHEAPER), (cheaper, fewer, CHEAPER, FEWER)):
        if lower and upper and max(lower) < min(upper):
            between = f"between {share_text(max(lower))} and {share_text(min(upper))} of the compute"
            return f"The crossover lies {between}: below it {below} are the better choice, above it {above}."
    if cheaper and fewer:
        return "There is no single crossover between the two: who wins changes more than once."
    turns = [
        share + (following - share) * found.loss.value / (found.loss.value - after.loss.value)
        for (share, found), (following, after) in pairwise(pairs)
        if found.loss.value * after.loss.value < 0
    ]
    if len(turns) == 1:
        return f"By the estimates alone the two would cross near {turns[0]:.0%}".replace("%", " %") + (
            " of the compute, which is not beyond doubt."
        )
    if turns:
        return "The estimates of the two cross more than once: no crossover can be made out."
    return "The two do not cross within these budgets."


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
