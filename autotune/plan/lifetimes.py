"""Which results of earlier calls serve in later ones, and how long they are kept."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from autotune.core.errors import PolicyError
from autotune.plan.plan import Action, Group, Pattern, Sources
from autotune.plan.rules import Rule


def sources_of(
    rules: Sequence[Rule],
    patterns: Sequence[Pattern],
    fresh: Sequence[bool],
    branches: Sequence[int],
    steps: Sequence[int],
    start: int,
) -> list[dict[Group, Sources]]:
    """For each call the groups that take from memory, and what they take: results of no fewer branches.

    Args:
        rules: the policy's.
        patterns: what the units do in each call from ``start`` on.
        fresh: whether nothing computed before serves, of the same calls.
        branches: that are computed, of the same calls.
        steps: the step that each call belongs to, from the first one on.
        start: the first call that is made.

    Raises:
        PolicyError: weights of a result that is not computed, as nothing reads it in its step.
    """
    groups = _groups(rules, list(dict.fromkeys(patterns)))
    taken: list[dict[Group, Sources]] = []
    computed: dict[Group, list[int]] = {}
    for call, (pattern, starts) in enumerate(zip(patterns, fresh, strict=True), start):
        if starts:
            computed = {group: [] for group, _ in groups}
        taken.append({})
        for group, rule in groups:
            action = pattern.actions[group[0]]
            if action is Action.COMPUTE:
                computed[group].append(call)
            elif action is not Action.NOT_NEEDED:
                wanted = branches[call - start]
                serving = [other for other in computed[group] if branches[other - start] >= wanted]
                taken[-1][group] = _terms(rule, serving, call, steps, start)
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


def weighed_calls(compute_steps: Collection[int], count: int, call: int, steps: Sequence[int]) -> tuple[int, ...]:
    """The calls whose results the ``count`` weights of a call's step are for, the newest first.

    They belong to the last ``count`` computing steps before it. Where a solver calls the denoiser several times a
    step, these are the same calls of their steps, or the last ones of steps with fewer.

    Args:
        compute_steps: of the rule; at least ``count`` of them come before the call's step.
        count: how many weights there are.
        call: the call that takes from memory.
        steps: the step that each call belongs to.
    """
    place = call - bisect_left(steps, steps[call])
    before = sorted(step for step in compute_steps if step < steps[call])[-count:]
    return tuple(min(bisect_left(steps, step) + place, bisect_left(steps, step + 1) - 1) for step in reversed(before))


def _groups(rules: Sequence[Rule], patterns: Sequence[Pattern]) -> list[tuple[Group, Rule]]:
    """The units of ``rules`` that do the same in each of ``patterns``, with their rule."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for number, rule in enumerate(rules):
        for unit in rule.units:
            found.setdefault((number, *(pattern.actions[unit] for pattern in patterns)), []).append(unit)
    return [(tuple(units), rules[key[0]]) for key, units in found.items()]


def _terms(rule: Rule, computed: Sequence[int], call: int, steps: Sequence[int], start: int) -> Sources:
    """What a call takes of the results of the calls ``computed``."""
    weights = rule.weights.get(steps[call])
    if weights is None:
        return _lagrange(computed[-1 - rule.order :], call)
    weighed = weighed_calls(rule.compute_steps, len(weights), call, steps)
    missing = set(weighed).difference(computed)
    if not missing:
        return tuple(zip(reversed(weighed), reversed(weights), strict=True))
    if min(missing) >= start:
        step = steps[min(missing)]
        raise PolicyError(
            f"the cache rule for {' and '.join(rule.names)} has step {steps[call]} weigh a result of step {step}, in"
            f" which nothing reads it and it is not computed: leave step {step} out of the rule's compute_steps"
        )
    # The call begins too late to have what the weights were fitted to.
    return _lagrange(computed[-len(weights) :], call)


def _lagrange(calls: Sequence[int], at: int) -> Sources:
    """Lagrange's weights of values at ``calls`` for the polynomial through them, taken at call ``at``."""
    return tuple((call, math.prod((at - other) / (call - other) for other in calls if other != call)) for call in calls)
