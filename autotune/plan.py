"""Policy + structure of a denoiser -> plan: for every call of the denoiser, what every unit does. Pure data.

Pricing and running read the same plan; that is why a price is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

from autotune.errors import PolicyError
from autotune.policy import Policy
from autotune.structure import Structure

Sources = tuple[tuple[int, float], ...]

_MOST_SCALES = 8


class Action(IntEnum):
    """What a unit does in a call.

    RESIDUAL adds the last computed output minus input to the present input.
    """

    COMPUTE = 0
    REUSE = 1
    FORECAST = 2
    RESIDUAL = 3
    NOT_NEEDED = 4


@dataclass(frozen=True)
class Rule:
    """One cache rule against one denoiser: units with the first block of their range, and when they compute."""

    units: Mapping[int, int]
    mode: str
    order: int
    compute_steps: frozenset[int]


@dataclass(frozen=True)
class Step:
    """One evaluation of the denoiser and the scheduler's step after it.

    Attributes:
        index: which call of the denoiser, counted over the whole schedule.
        step: which of the policy's steps it belongs to; second-order solvers call twice a step.
        height, width: of the latents.
        branches: 2 where the conditional and the unconditional branch are computed, else 1.
        actions: one entry per unit.
        sources: for every unit that takes from memory, which of its earlier results: pairs of the
            call they were computed in and their weight, summing to 1.
        keep: units whose result of this call is taken later.
        drop: kept results (unit, call) that nobody takes after this call.
        fresh: nothing computed before can serve (first call, another resolution, a branch that did not run before).
        handoff: how the latents reach the next stage's size after this call.
    """

    index: int
    step: int
    height: int
    width: int
    branches: int
    actions: tuple[Action, ...]
    sources: Mapping[int, Sources]
    keep: frozenset[int]
    drop: frozenset[tuple[int, int]]
    fresh: bool
    handoff: str | None


@dataclass(frozen=True)
class Plan:
    """``residuals`` are the units that keep output minus input, with the first block of their range."""

    structure: Structure
    steps: tuple[Step, ...]
    residuals: Mapping[int, int]


def latent_size(full: int, scale: float, multiple: int) -> int:
    """The latents' side length at ``scale``.

    Raises:
        PolicyError: it is not a whole multiple of what the denoiser accepts.
    """
    size = Fraction(scale).limit_denominator(1000) * full
    if size.denominator != 1 or size % multiple or size == 0:
        nearest = sorted(range(multiple, full, multiple), key=lambda n: abs(n - size))[:_MOST_SCALES]
        scales = ", ".join(f"{n / full:.4g}" for n in sorted(nearest))
        raise PolicyError(
            f"resolution scale {scale:g} gives latents of {float(size):g} a side, this denoiser takes multiples of"
            f" {multiple}: use one of {scales or 'no other scale at this size'}"
        )
    return int(size)


def resolve_rules(policy: Policy, structure: Structure) -> list[Rule]:
    """The policy's cache rules against one denoiser, the one that guidance implies included.

    Raises:
        PolicyError: a unit the denoiser does not have, a unit in two rules, a residual where there is none,
            or cross-attention to keep in a denoiser without.
    """
    rules = [
        Rule(structure.resolve(rule.units), rule.mode, rule.order or 0, frozenset(rule.compute_steps))
        for rule in policy.cache
    ]
    guidance = policy.guidance
    if guidance is not None and guidance.after == "cross_attention":
        units = structure.of_kind("cross-attention")
        if not units:
            raise PolicyError("guidance.after is 'cross_attention' and this denoiser has no such units: use 'nothing'")
        rules.append(Rule({unit: unit for unit in units}, "reuse", 0, frozenset(range(guidance.stop_step))))
    owner: dict[int, Rule] = {}
    for rule in rules:
        for unit, first in rule.units.items():
            name = structure.units[unit].name
            if unit in owner:
                raise PolicyError(f"two cache rules name {name!r}: leave it in one of them")
            owner[unit] = rule
            if rule.mode == "residual" and not (structure.units[unit].streams and structure.units[first].streams):
                raise PolicyError(
                    f"{name!r} has no residual, its output does not continue its input: use mode 'reuse' or 'forecast'"
                )
    return rules


def taken_at(step: int, rules: Sequence[Rule], structure: Structure) -> dict[int, tuple[int, ...]]:
    """Units that do not compute in ``step``, each with the units it reads all the same."""
    return {
        unit: structure.units[first].inputs if rule.mode == "residual" else ()
        for rule in rules
        if step not in rule.compute_steps
        for unit, first in rule.units.items()
    }


def compile_plan(
    policy: Policy,
    structure: Structure,
    height: int,
    width: int,
    *,
    guided: bool = True,
    calls: Sequence[int] | None = None,
    start: int = 0,
) -> Plan:
    """Make ``policy`` explicit for latents of ``height`` x ``width``.

    Where features of an earlier call cannot serve (first call, another resolution, a branch
    that did not run before) every unit computes, whatever the policy says.

    Args:
        guided: whether the call uses classifier-free guidance at all; without it every step has one branch.
        calls: how often the scheduler has the denoiser called in each step; once by default.
        start: the first call that is made; image-to-image leaves out those before.

    Raises:
        PolicyError: a unit the denoiser does not have, or a scale it does not accept.
    """
    steps = [step for step, count in enumerate(calls or [1] * policy.steps) for _ in range(count)]
    sizes = _sizes(policy, structure, height, width)
    branches = [_branches(policy, step) if guided else 1 for step in range(policy.steps)]
    rules = resolve_rules(policy, structure)
    rule_of = {unit: rule for rule in rules for unit in rule.units}

    actions: list[tuple[Action, ...]] = []
    sources: list[dict[int, Sources]] = []
    fresh: list[bool] = []
    computed: dict[int, list[int]] = {}
    for call in range(start, len(steps)):
        step, before = steps[call], steps[call - 1]
        fresh.append(call == start or sizes[step] != sizes[before] or branches[step] > branches[before])
        if fresh[-1]:
            computed = {unit: [] for unit in range(len(structure.units))}
        reads = {} if fresh[-1] else taken_at(step, rules, structure)
        needed = structure.needed(reads)
        taken = {unit: _weights(computed[unit][-1 - rule_of[unit].order :], call) for unit in reads if unit in needed}
        for unit in needed - set(reads):
            computed[unit].append(call)
        actions.append(tuple(_action(unit, needed, taken, rule_of) for unit in range(len(structure.units))))
        sources.append(taken)

    keep, drop = _lifetimes(sources, start)
    stage_ends = {stage.until_step - 1: stage.handoff for stage in policy.resolution}
    last_call = {step: call for call, step in enumerate(steps)}
    return Plan(
        structure,
        tuple(
            Step(
                call,
                steps[call],
                *sizes[steps[call]],
                branches[steps[call]],
                actions[call - start],
                sources[call - start],
                keep[call - start],
                drop[call - start],
                fresh[call - start],
                stage_ends.get(steps[call]) if last_call[steps[call]] == call else None,
            )
            for call in range(start, len(steps))
        ),
        {unit: first for rule in rules if rule.mode == "residual" for unit, first in rule.units.items()},
    )


def _sizes(policy: Policy, structure: Structure, height: int, width: int) -> list[tuple[int, int]]:
    sizes: list[tuple[int, int]] = []
    for stage in policy.resolution:
        size = tuple(latent_size(full, stage.scale, structure.size_multiple) for full in (height, width))
        sizes += [(size[0], size[1])] * (stage.until_step - len(sizes))
    return sizes + [(height, width)] * (policy.steps - len(sizes))


def _branches(policy: Policy, step: int) -> int:
    guidance = policy.guidance
    return 2 if guidance is None or guidance.start_step <= step < guidance.stop_step else 1


def _action(unit: int, needed: frozenset[int], taken: Mapping[int, Sources], rule_of: Mapping[int, Rule]) -> Action:
    if unit not in needed:
        return Action.NOT_NEEDED
    if unit not in taken:
        return Action.COMPUTE
    if rule_of[unit].mode == "residual":
        return Action.RESIDUAL
    return Action.REUSE if len(taken[unit]) == 1 else Action.FORECAST


def _weights(calls: Sequence[int], at: int) -> Sources:
    """Lagrange's weights of values at ``calls`` for the polynomial through them, taken at call ``at``."""
    return tuple((call, math.prod((at - other) / (call - other) for other in calls if other != call)) for call in calls)


def _lifetimes(
    sources: Sequence[Mapping[int, Sources]], start: int
) -> tuple[list[frozenset[int]], list[frozenset[tuple[int, int]]]]:
    """For each call, whose result to keep, and which kept results (unit, call) nobody takes any more."""
    last_taken = {
        (unit, call): position
        for position, taken in enumerate(sources)
        for unit, terms in taken.items()
        for call, _ in terms
    }
    keep: list[set[int]] = [set() for _ in sources]
    drop: list[set[tuple[int, int]]] = [set() for _ in sources]
    for (unit, call), position in last_taken.items():
        keep[call - start].add(unit)
        drop[position].add((unit, call))
    return [frozenset(units) for units in keep], [frozenset(outputs) for outputs in drop]
