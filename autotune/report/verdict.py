"""The last round in one sentence that claims no more than was seen."""

from __future__ import annotations

from autotune.core.interval import Interval
from autotune.core.naming import singular
from autotune.cost import parse_budget
from autotune.policy import Policy
from autotune.policy.words import steps_in_words
from autotune.report.floor import floor_verdict
from autotune.results.finalists import Finalists
from autotune.search.proposer import LEAST_USED


def verdict(found: Finalists, noun: str = "prompts") -> str:
    """Whether the policy beats fewer steps at the same cost; or where a floor was asked for, whether it holds that.

    Args:
        found: The last round.
        noun: What its inputs are.
    """
    if found.floor is not None:
        return floor_verdict(found, found.floor, noun)
    rival = f"{steps_in_words(found.fewer_steps.policy)} at the same cost"
    seen, second = _seen(found.difference), found.second_opinion
    if not found.candidates:
        return f"Nothing found within the budget comes near {rival}: no candidate was worth all of its pictures."
    if found.prompts_needed is not None:
        few = f"{found.prompts} held-out {noun} are" if found.prompts != 1 else f"One held-out {singular(noun)} is"
        return (
            f"{few} too few to say whether the best policy beats {rival}, {found.prompts_needed} would be needed: its"
            f" held-out loss differs by {seen}."
        )
    if found.better:
        said = f"The policy beats {rival}: its held-out loss differs by {seen}"
        if second is None:
            return f"{said}."
        if second.difference.high < 0:
            return f"{said}, before {_second(second.judge)}, by {_seen(second.difference)}."
        return f"{said}. It is no worse before {_second(second.judge)}: {_seen(second.difference)}."
    if found.difference.high < 0 and second is not None:
        finds = "It is worse" if second.difference.low > 0 else "It may be worse"
        return (
            f"The best policy found beats {rival} before the judges of the search: its loss differs by {seen}."
            f" {finds} before {_second(second.judge)}: {_seen(second.difference)}."
        )
    if found.difference.value < 0:
        return f"The best policy found looks better than {rival}, but not beyond doubt: its loss differs by {seen}."
    return f"Nothing found within the budget beats {rival}: the best policy's held-out loss differs by {seen}."


def ended_early(found: Finalists) -> str | None:
    """That not all pictures were made, where the verdict was known before."""
    if found.images_planned is None:
        return None
    known = "they were enough" if found.succeeded else "more would hardly have changed the verdict"
    return f"The last round ended after {found.images} of {found.images_planned} pictures of each run: {known}."


def _second(judge: str) -> str:
    return f"{judge}, which the search did not ask"


def _seen(difference: Interval) -> str:
    return f"{difference.value:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"


def less_is_enough(policy: Policy) -> str | None:
    """That an exported policy leaves much of its budget in FLOPs, where it does: a budget is no target."""
    floor = policy.quality is not None and policy.quality.certificate is not None
    if policy.cost is None or policy.budget is None or floor:
        return None
    full, bounds = policy.cost.flops / policy.cost.relative, parse_budget(policy.budget).bounds
    shares = [float(bound.flops_share) for bound in bounds if bound.flops_share is not None]
    shares += [bound.flops / full for bound in bounds if bound.flops is not None]
    if not shares or policy.cost.relative >= LEAST_USED * min(shares):
        return None
    taken = f"{policy.cost.relative:.1%} of the full run's FLOPs"
    return f"Less is enough: the best policy within {policy.budget} takes {taken}."
