"""A policy's cache rules against one denoiser: which units each is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from autotune.core.errors import PolicyError
from autotune.plan.structure import Structure
from autotune.policy import Policy

REMEMBERED = 1024
"""What is kept of the same names and rules: searches price thousands of policies that differ in few ways."""

# What guidance lets be reused after it has stopped; no unit has this name.
_CROSS_ATTENTION = ("cross attention",)


@dataclass(frozen=True)
class Rule:
    """One cache rule against one denoiser: units with the first block of their range, and when they compute.

    ``names`` are the policy's words for the units, ``weights`` its numbers by step, the newest result's first.
    """

    names: tuple[str, ...]
    units: Mapping[int, int]
    mode: str
    order: int
    compute_steps: frozenset[int]
    weights: Mapping[int, tuple[float, ...]] = field(default_factory=dict)


def resolve_rules(policy: Policy, structure: Structure) -> list[Rule]:
    """The policy's cache rules against one denoiser, the one that guidance implies included.

    Raises:
        PolicyError: a unit the denoiser does not have, a unit in two rules, a residual where there is none,
            or cross-attention to keep in a denoiser without.
    """
    rules = [
        Rule(
            rule.units,
            units_of(structure, rule.units),
            rule.mode,
            rule.order or 0,
            frozenset(rule.compute_steps),
            dict(zip(rule.skipped_steps(policy.steps), rule.weights or (), strict=False)),
        )
        for rule in policy.cache
    ]
    guidance = policy.guidance
    if guidance is not None and guidance.after == "cross_attention":
        units = units_of(structure, _CROSS_ATTENTION)
        if not units:
            raise PolicyError("guidance.after is 'cross_attention' and this denoiser has no such units: use 'nothing'")
        rules.append(Rule(_CROSS_ATTENTION, units, "reuse", 0, frozenset(range(guidance.stop_step))))
    owned: set[int] = set()
    for rule in rules:
        for unit, first in rule.units.items():
            name = structure.units[unit].name
            if unit in owned:
                raise PolicyError(f"two cache rules name {name!r}: leave it in one of them")
            if rule.mode == "residual" and not (structure.units[unit].streams and structure.units[first].streams):
                raise PolicyError(
                    f"{name!r} has no residual, its output does not continue its input: use mode 'reuse' or 'forecast'"
                )
        owned |= rule.units.keys()
    return rules


def taken_at(step: int, rules: Sequence[Rule], structure: Structure) -> dict[int, tuple[int, ...]]:
    """Units that do not compute in ``step``, each with the units it reads all the same."""
    return {
        unit: structure.units[first].inputs if rule.mode == "residual" else ()
        for rule in rules
        if step not in rule.compute_steps
        for unit, first in rule.units.items()
    }


@lru_cache(maxsize=REMEMBERED)
def units_of(structure: Structure, names: tuple[str, ...]) -> Mapping[int, int]:
    """The units that a rule's ``names`` stand for, each with the first block of its range."""
    if names == _CROSS_ATTENTION:
        return {unit: unit for unit in structure.of_kind("cross-attention")}
    return structure.resolve(names)
