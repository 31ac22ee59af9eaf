"""Which results of earlier calls serve in later ones, and how long they are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.plan.plan import Action, Group, Pattern, Sources
from autotune.plan.rules import Rule


def sources_of(
    rules: Sequence[Rule], patterns: Sequence[Pattern], fresh: Sequence[bool], branches: Sequence[int], start: int
) -> list[dict[Group, Sources]]:
    """For each call the groups that take from memory, and what they take: results of no fewer ``branches``."""
    groups = _groups(rules, list(dict.fromkeys(patterns)))
    taken: list[dict[Group, Sources]] = []
    computed: dict[Group, list[int]] = {}
    for call, (pattern, starts) in enumerate(zip(patterns, fresh, strict=True), start):
        if starts:
            computed = {group: [] for group, _ in groups}
        taken.append({})
        for group, order in groups:
            action = pattern.actions[group[0]]
            if action is Action.COMPUTE:
                computed[group].append(call)
            elif action is not Action.NOT_NEEDED:
                wanted = branches[call - start]
                serving = [other for other in computed[group] if branches[other - start] >= wanted]
                taken[-1][group] = _weights(serving[-1 - order :], call)
    return taken


def lifetimes_of(
    taken: Sequence[Mapping[Group, Sources]], start: int
) -> tuple[list[list[Group]], list[list[tuple[Group, int]]]]:
    """For each call, whose result to keep, and which kept results (group, call) nobody takes any more."""
    last_taken = {
        (group, call): position
        for position, groups in enumerate(taken)
        for group, terms in groups.items()
        for call, _ in terms
    }
    kept: list[list[Group]] = [[] for _ in taken]
    dropped: list[list[tuple[Group, int]]] = [[] for _ in taken]
    for (group, call), position in last_taken.items():
        kept[call - start].append(group)
        dropped[position].append((group, call))
    return kept, dropped


def _groups(rules: Sequence[Rule], patterns: Sequence[Pattern]) -> list[tuple[Group, int]]:
    """The units of ``rules`` that do the same in each of ``patterns``, with the order of their rule."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for number, rule in enumerate(rules):
        for unit in rule.units:
            found.setdefault((number, *(pattern.actions[unit] for pattern in patterns)), []).append(unit)
    return [(tuple(units), rules[key[0]].order) for key, units in found.items()]


def _weights(calls: Sequence[int], at: int) -> Sources:
    """Lagrange's weights of values at ``calls`` for the polynomial through them, taken at call ``at``."""
    return tuple((call, math.prod((at - other) / (call - other) for other in calls if other != call)) for call in calls)
