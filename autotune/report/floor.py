"""What a search for the cheapest policy above a floor found, in sentences that claim no more than was seen."""

from __future__ import annotations

from autotune.core.interval import Interval
from autotune.core.naming import FULL_RUN, singular
from autotune.policy.words import certified_in_words, floor_in_words, steps_in_words
from autotune.results.finalists import Finalists
from autotune.results.floor import FloorFound, Nearest

# Options by what they bound.
_OPTIONS = {"loss": "--max-loss", "change": "--max-change", "second opinion": "--second-opinion"}


def floor_verdict(found: Finalists, floor: FloorFound, noun: str = "prompts") -> str:
    """What is certified, of which policy, and what is not.

    Args:
        found: The last round.
        floor: What it says of the floor.
        noun: What its inputs are.
    """
    winner = found.winner
    if not floor.met:
        return _unmet(found, floor, noun)
    run = steps_in_words(winner.policy) if winner == found.fewer_steps else "the policy"
    within = "" if floor.budget is None else f" within {floor.budget}"
    said = (
        f"Certified{within}: {run} {'have' if winner == found.fewer_steps else 'has'}"
        f" {certified_in_words(floor.certificate)}."
    )
    if floor.nearest is None:
        return f"{said} Nothing cheaper was found that could hold that."
    return f"{said} The next cheaper one tested, {floor.nearest.id}, is not certified: {_why(floor, floor.nearest)}."


def floor_outcome(found: Finalists, floor: FloorFound) -> str:
    """The title of a report: ``the cheapest policy with a loss of at most 0.02``."""
    what = floor_in_words(floor.certificate)
    if not floor.met:
        return f"nothing cheaper than the full run has {what} for certain"
    run = f"take {steps_in_words(found.winner.policy)}" if found.winner == found.fewer_steps else "a policy"
    return f"{run} with {what}"


def _unmet(found: Finalists, floor: FloorFound, noun: str) -> str:
    what = floor_in_words(floor.certificate)
    exported = f"the {FULL_RUN}, which loses nothing, is exported"
    if found.prompts_needed is not None:
        few = f"{found.prompts} held-out {noun} are" if found.prompts != 1 else f"One held-out {singular(noun)} is"
        return f"{few} too few to certify anything, {found.prompts_needed} would be needed: {exported}."
    near = floor.nearest
    if near is None:
        return f"No candidate was worth all of its pictures, so none is certified to have {what}: {exported}."
    nearest = f"the nearest, {near.id}, is not certified: {_why(floor, near)}"
    if floor.budget is None:
        return f"Nothing cheaper than the {FULL_RUN} is certified to have {what}: {nearest}. So {exported}."
    options = " and ".join(_OPTIONS.get(each, "--error-ceiling") for each in near.over)
    return (
        f"Nothing within {floor.budget} is certified to have {what}, so {options} cannot hold together with"
        f" --budget: {nearest}. So {exported}, over the budget."
    )


def _why(floor: FloorFound, near: Nearest) -> str:
    seen: dict[str, Interval | None] = {"loss": near.loss, "change": near.change, "second opinion": near.second}
    parts = []
    for name in near.over:
        interval = seen.get(name)
        if interval is None:
            parts.append("its error is above the ceiling")
            continue
        whose = "loss before the second opinion" if name == "second opinion" else name
        parts.append(f"its {whose} is {interval.value:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})")
    return " and ".join(parts)
