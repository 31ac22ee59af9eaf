"""Tiers on the command line: ``--tier NAME=COST`` or ``NAME=loss:X`` of a search, ``--tier NAME`` of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autotune.core.errors import InputError, PolicyError, did_you_mean
from autotune.core.naming import FULL_TIER, is_hub_id

if TYPE_CHECKING:
    from autotune.cli.models import ModelSource
    from autotune.policy import Policy, PolicySet
    from autotune.quality.floor import Floor

# Parts of a tier that are floors; all others are budgets.
_FLOORS = ("loss", "change")


def tier_budgets(texts: Sequence[str]) -> dict[str, str]:
    """What ``--tier`` asks for by the names of tiers: budgets, as ``--budget`` takes them, or floors.

    Raises:
        InputError: one is not written so, has a name that no tier may have, a name is given twice, or there are more
            than a file holds.

    Example:
        >>> tier_budgets(["high=60%", "draft=25%,2x"])
        {'high': '60%', 'draft': '25%,2x'}
    """
    from autotune.policy.policy_set import MAX_TIERS, tier_name

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
    if len(found) > MAX_TIERS:
        raise InputError(f"--tier: {len(found)} are given; a file holds at most {MAX_TIERS}")
    return found


def tier_floors(costs: Mapping[str, str]) -> dict[str, Floor]:
    """The floors that tiers ask for by their names; none where they ask for budgets.

    Args:
        costs: What :func:`tier_budgets` found.

    Raises:
        InputError: one has a floor that is none, two floors of a kind or a budget as well, or another has none.

    Example:
        >>> tier_floors({"lossless": "loss:0", "high": "loss:0.05,change:0.2"})["high"]
        Floor(loss=0.05, change=0.2)
        >>> tier_floors({"draft": "25%"})
        {}
    """
    from autotune.options.floor import FloorOptions

    found: dict[str, Floor] = {}
    for name, text in costs.items():
        given: dict[str, float] = {}
        parts = [[half.strip() for half in part.split(":", 1)] for part in text.split(",")]
        if not any(part[0] in _FLOORS for part in parts):
            continue
        for part in parts:
            kind, most = (*part, "")[:2]
            if kind not in _FLOORS or kind in given:
                raise InputError(f"--tier {name}={text}: a floor is loss:X, change:X or both; it takes no budget")
            try:
                given[kind] = float(most)
            except ValueError:
                raise InputError(f"--tier {name}={text}: {most or 'nothing'} is no number; write {kind}:0.02") from None
        try:
            floor = FloorOptions(max_loss=given.get("loss"), max_change=given.get("change")).floor
        except InputError as error:
            raise InputError(f"--tier {name}={text}: {error}") from None
        assert floor is not None, "one was given"
        found[name] = floor
    if found and (others := [name for name in costs if name not in found]):
        raise InputError(
            f"--tier {others[0]}={costs[others[0]]}: other tiers have floors; give every tier one, or none"
        )
    return found


def load_any(source: str, tier: str | None = None) -> Policy | PolicySet:
    """The policy or policies in a file or on the Hub, where ``policies.json`` is looked for if a tier is named.

    Raises:
        PolicyError: it is neither, or cannot be read.
    """
    from autotune.policy import load_policies
    from autotune.policy.loading import load_policy
    from autotune.policy.policy_set import holds_set

    several = holds_set(source) or (tier is not None and is_hub_id(source))
    return load_policies(source) if several else load_policy(source)


def policies_to_show(source: str, tier: str | None, model: ModelSource | None) -> Policy | PolicySet:
    """What a source holds, all of its tiers or the one that is named, each checked against a model.

    Args:
        source: a file, or a Hub id.
        tier: a tier's name; of a set, ``full`` is the full run that its policies are compared with.
        model: that the policies should be for; None of any.

    Raises:
        PolicyError: it cannot be read, or was made for another model.
        InputError: there is no such tier.
    """
    from autotune.policy import Policy

    found = load_any(source, tier)
    if isinstance(found, Policy):
        if tier is not None:
            raise InputError(f"--tier {tier}: goes with a file of several policies, and {source} holds one")
        if model is not None:
            model.check_policy(found.model)
        return found
    if model is not None:
        check_tiers(found, source, model)
    if tier is None:
        return found
    if tier in found.tiers:
        return found.tiers[tier]
    if tier != FULL_TIER:
        raise InputError(f"--tier {tier}: {source} has no such tier{did_you_mean(tier, [*found.tiers, FULL_TIER])}")
    made_for = next((policy.model for policy in found.tiers.values() if policy.model is not None), None)
    if made_for is None:
        raise InputError(
            f"--tier {tier}: {source} does not say which model it is for, nor its steps; leave --policy out"
        )
    return Policy(steps=made_for.full_steps, model=made_for)


def policy_to_run(source: str, tier: str | None, model: ModelSource) -> Policy | None:
    """The one policy that a source and a tier name; None for the full run.

    Raises:
        PolicyError: it cannot be read, or was made for another model.
        InputError: the tier is missing, or there is none of that name.
    """
    from autotune.policy import Policy

    found = policies_to_show(source, tier, model) if tier != FULL_TIER else load_any(source, tier)
    if isinstance(found, Policy):
        if tier == FULL_TIER:
            raise InputError(f"--tier {tier}: goes with a file of several policies, and {source} holds one")
        return found
    if tier is None:
        raise InputError(f"{source}: holds the tiers {', '.join(found.tiers)}; say which with --tier")
    check_tiers(found, source, model)
    return None


def check_tiers(policies: PolicySet, source: str, model: ModelSource) -> None:
    """Refuse policies that were made for another model.

    Raises:
        PolicyError: it names the first that was.
    """
    for name, policy in policies.tiers.items():
        try:
            model.check_policy(policy.model)
        except PolicyError as error:
            raise PolicyError(f"{source}, tier {name}: {error}") from None
