"""Tiers on the command line: ``--tier NAME=COST`` of a search, and ``--tier NAME`` of a file that holds several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from autotune.core.errors import InputError, PolicyError, did_you_mean
from autotune.core.naming import FULL_TIER, is_hub_id

if TYPE_CHECKING:
    from autotune.policy import Policy, PolicySet

Source = TypeVar("Source")


def tier_budgets(texts: Sequence[str]) -> dict[str, str]:
    """What ``--tier`` asks for: budgets, as ``--budget`` takes them, by the names of tiers.

    Raises:
        InputError: one is not written so, has a name that no tier may have, or a name is given twice.

    Example:
        >>> tier_budgets(["high=60%", "draft=25%,2x"])
        {'high': '60%', 'draft': '25%,2x'}
    """
    from autotune.policy import tier_name

    found: dict[str, str] = {}
    for text in texts:
        name, _, budget = (part.strip() for part in text.partition("="))
        if not name or not budget:
            raise InputError(f"--tier {text}: write a name and what it may cost, such as draft=25%")
        try:
            tier_name(name)
        except ValueError as error:
            raise InputError(f"--tier {text}: {error}") from None
        if name in found:
            raise InputError(f"--tier {text}: {name} is given twice; give each tier one cost")
        found[name] = budget
    return found


def load_any(source: str, tier: str | None = None) -> Policy | PolicySet:
    """The policy or policies in a file or on the Hub, where ``policies.json`` is looked for if a tier is named.

    Raises:
        PolicyError: it is neither, or cannot be read.
    """
    from autotune.policy import load_policies
    from autotune.policy.loading import load_policy
    from autotune.policy.policy_set import holds_set

    hub = is_hub_id(source)
    return load_policies(source) if holds_set(source) or (hub and tier is not None) else load_policy(source)


def chosen_policy(source: str, tier: str | None) -> Policy | None:
    """The one policy that a source and a tier name; None for the full run.

    Raises:
        PolicyError: it cannot be read.
        InputError: the tier is missing, or there is none of that name.
    """
    found = load_any(source, tier)
    tiers = getattr(found, "tiers", None)
    if tiers is None:
        if tier is not None:
            raise InputError(f"--tier {tier}: goes with a file of several policies, and {source} holds one")
        return found  # type: ignore[return-value]
    if tier is None:
        raise InputError(f"{source}: holds {', '.join(tiers)}; say which with --tier, or --tier {FULL_TIER}")
    if tier != FULL_TIER and tier not in tiers:
        raise InputError(f"--tier {tier}: {source} has no such tier{did_you_mean(tier, [*tiers, FULL_TIER])}")
    policy: Policy | None = tiers.get(tier)
    return policy


def check_tiers(policies: PolicySet, source: str, check: object) -> None:
    """Refuse policies that were made for another model.

    Args:
        policies: the policies.
        source: where they are from.
        check: refuses what one of them was made for.

    Raises:
        PolicyError: the first that was.
    """
    for name, policy in policies.tiers.items():
        try:
            check(policy.model)  # type: ignore[operator]
        except PolicyError as error:
            raise PolicyError(f"{source}, tier {name}: {error}") from None
