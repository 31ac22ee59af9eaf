"""Policy + structure of a denoiser -> plan: for every call of the denoiser, what every unit does. Pure data.

Pricing and running read the same plan; that is why a price is exact.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

from autotune.core.errors import InputError, PolicyError
from autotune.plan.structure import Structure
from autotune.policy import Policy

Group = tuple[int, ...]
Sources = tuple[tuple[int, float], ...]

MIN_SCALE = Fraction(1, 4)
"""Of a side of the latents: below a quarter hardly any picture is left to speak of."""

_MOST_SCALES = 8
# What guidance lets be reused after it has stopped; no unit has this name.
_CROSS_ATTENTION = ("cross attention",)
# Searches price thousands of policies that differ in few ways.
_REMEMBERED = 1024


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
    """One cache rule against one denoiser: units with the first block of their range, and when they compute.

    ``names`` are the policy's words for the units.
    """

    names: tuple[str, ...]
    units: Mapping[int, int]
    mode: str
    order: int
    compute_steps: frozenset[int]


@dataclass(frozen=True, eq=False)
class Pattern:
    """What the units do in one call of the denoiser, but for how many results a reuse takes.

    Calls that do the same share one pattern, compared by identity.
    """

    actions: tuple[Action, ...]

    @cached_property
    def computed(self) -> tuple[int, ...]:
        """The units that compute."""
        return tuple(unit for unit, action in enumerate(self.actions) if action is Action.COMPUTE)

    @cached_property
    def taken(self) -> frozenset[int]:
        """The units that take from memory."""
        return frozenset(unit for unit, action in enumerate(self.actions) if action in (Action.REUSE, Action.RESIDUAL))


@dataclass(frozen=True)
class DenoiserCall:
    """One evaluation of the denoiser and the scheduler's step after it.

    Units that do the same as one another throughout a plan are planned together, as a group.

    Attributes:
        index: which call of the denoiser, counted over the whole schedule.
        step: which of the policy's steps it belongs to; second-order solvers call twice a step.
        height, width: of the latents.
        branches: 2 where the conditional and the unconditional branch are computed, else 1.
        pattern: what the units do.
        taken: groups that take from memory, each with which of its earlier results: pairs of the
            call they were computed in and their weight, summing to 1.
        kept: groups whose result of this call is taken later.
        dropped: kept results (group, call) that nobody takes after this call.
        fresh: nothing computed before can serve (first call, another resolution, a branch that did not run before).
        handoff: how the latents reach the next stage's size after this call.
    """

    index: int
    step: int
    height: int
    width: int
    branches: int
    pattern: Pattern
    taken: tuple[tuple[Group, Sources], ...]
    kept: tuple[Group, ...]
    dropped: tuple[tuple[Group, int], ...]
    fresh: bool
    handoff: str | None

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """One entry per unit."""
        forecast = {unit for group, terms in self.taken if len(terms) > 1 for unit in group}
        return tuple(
            Action.FORECAST if unit in forecast else action for unit, action in enumerate(self.pattern.actions)
        )

    @cached_property
    def sources(self) -> Mapping[int, Sources]:
        """What every unit that takes from memory takes."""
        return {unit: terms for group, terms in self.taken for unit in group}

    @cached_property
    def keep(self) -> frozenset[int]:
        """Units whose result of this call is taken later."""
        return frozenset(unit for group in self.kept for unit in group)

    @cached_property
    def drop(self) -> frozenset[tuple[int, int]]:
        """Kept results (unit, call) that nobody takes after this call."""
        return frozenset((unit, call) for group, call in self.dropped for unit in group)


@dataclass(frozen=True)
class Plan:
    """``residuals`` are the units that keep output minus input, with the first block of their range."""

    structure: Structure
    steps: tuple[DenoiserCall, ...]
    residuals: Mapping[int, int]

    @cached_property
    def digest(self) -> str:
        """A hash of what every step does, equal for plans that compute the same whatever their policies say."""
        calls = [
            (
                step.height,
                step.width,
                step.branches,
                tuple(map(int, step.pattern.actions)),
                sorted(step.sources.items()),
                step.handoff,
            )
            for step in self.steps
        ]
        return hashlib.sha256(repr((calls, sorted(self.residuals.items()))).encode()).hexdigest()[:16]


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


def accepted_scales(height: int, width: int, multiple: int) -> tuple[Fraction, ...]:
    """Scales from a quarter to 1, growing, at which both sides of the latents stay whole multiples of ``multiple``.

    Raises:
        InputError: the full size itself is no such multiple.
    """
    if height % multiple or width % multiple:
        raise InputError(
            f"latents of {height}x{width} do not fit this denoiser; choose a picture size whose latents are"
            f" multiples of {multiple} a side"
        )
    scales = (Fraction(side, height) for side in range(multiple, height + 1, multiple))
    return tuple(scale for scale in scales if scale >= MIN_SCALE and (scale * width) % multiple == 0)


def resolve_rules(policy: Policy, structure: Structure) -> list[Rule]:
    """The policy's cache rules against one denoiser, the one that guidance implies included.

    Raises:
        PolicyError: a unit the denoiser does not have, a unit in two rules, a residual where there is none,
            or cross-attention to keep in a denoiser without.
    """
    rules = [
        Rule(rule.units, _units(structure, rule.units), rule.mode, rule.order or 0, frozenset(rule.compute_steps))
        for rule in policy.cache
    ]
    guidance = policy.guidance
    if guidance is not None and guidance.after == "cross_attention":
        units = _units(structure, _CROSS_ATTENTION)
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

    fresh: list[bool] = []
    patterns: list[Pattern] = []
    for call in range(start, len(steps)):
        step, before = steps[call], steps[call - 1]
        fresh.append(call == start or sizes[step] != sizes[before] or branches[step] > branches[before])
        reading = [] if fresh[-1] else [(rule.names, rule.mode) for rule in rules if step not in rule.compute_steps]
        patterns.append(_pattern(structure, tuple(reading)))
    taken = _sources(rules, patterns, fresh, start)
    kept, dropped = _lifetimes(taken, start)
    stage_ends = {stage.until_step - 1: stage.handoff for stage in policy.resolution}
    last_call = {step: call for call, step in enumerate(steps)}
    return Plan(
        structure,
        tuple(
            DenoiserCall(
                call,
                step := steps[call],
                *sizes[step],
                branches[step],
                patterns[call - start],
                tuple(taken[call - start].items()),
                tuple(kept[call - start]),
                tuple(dropped[call - start]),
                fresh[call - start],
                stage_ends.get(step) if last_call[step] == call else None,
            )
            for call in range(start, len(steps))
        ),
        {unit: first for rule in rules if rule.mode == "residual" for unit, first in rule.units.items()},
    )


@lru_cache(maxsize=_REMEMBERED)
def _units(structure: Structure, names: tuple[str, ...]) -> Mapping[int, int]:
    if names == _CROSS_ATTENTION:
        return {unit: unit for unit in structure.of_kind("cross-attention")}
    return structure.resolve(names)


@lru_cache(maxsize=_REMEMBERED)
def _pattern(structure: Structure, reading: tuple[tuple[tuple[str, ...], str], ...]) -> Pattern:
    """What the units do when those that ``reading`` names, each with its mode, do not compute."""
    modes = {unit: (mode, first) for names, mode in reading for unit, first in _units(structure, names).items()}
    needed = structure.needed(
        {unit: structure.units[first].inputs if mode == "residual" else () for unit, (mode, first) in modes.items()}
    )

    def action(unit: int) -> Action:
        if unit not in needed:
            return Action.NOT_NEEDED
        if unit not in modes:
            return Action.COMPUTE
        return Action.RESIDUAL if modes[unit][0] == "residual" else Action.REUSE

    return Pattern(tuple(action(unit) for unit in range(len(structure.units))))


def _groups(rules: Sequence[Rule], patterns: Sequence[Pattern]) -> list[tuple[Group, int]]:
    """The units of ``rules`` that do the same in each of ``patterns``, with the order of their rule."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for number, rule in enumerate(rules):
        for unit in rule.units:
            found.setdefault((number, *(pattern.actions[unit] for pattern in patterns)), []).append(unit)
    return [(tuple(units), rules[key[0]].order) for key, units in found.items()]


def _sources(
    rules: Sequence[Rule], patterns: Sequence[Pattern], fresh: Sequence[bool], start: int
) -> list[dict[Group, Sources]]:
    """For each call the groups that take from memory, and what they take."""
    groups = _groups(rules, list(dict.fromkeys(patterns)))
    taken: list[dict[Group, Sources]] = []
    computed: dict[Group, list[int]] = {}
    for call, (pattern, anew) in enumerate(zip(patterns, fresh, strict=True), start):
        if anew:
            computed = {group: [] for group, _ in groups}
        taken.append({})
        for group, order in groups:
            action = pattern.actions[group[0]]
            if action is Action.COMPUTE:
                computed[group].append(call)
            elif action is not Action.NOT_NEEDED:
                taken[-1][group] = _weights(computed[group][-1 - order :], call)
    return taken


def _sizes(policy: Policy, structure: Structure, height: int, width: int) -> list[tuple[int, int]]:
    sizes: list[tuple[int, int]] = []
    for stage in policy.resolution:
        size = tuple(latent_size(full, stage.scale, structure.size_multiple) for full in (height, width))
        sizes += [(size[0], size[1])] * (stage.until_step - len(sizes))
    return sizes + [(height, width)] * (policy.steps - len(sizes))


def _branches(policy: Policy, step: int) -> int:
    guidance = policy.guidance
    return 2 if guidance is None or guidance.start_step <= step < guidance.stop_step else 1


def _weights(calls: Sequence[int], at: int) -> Sources:
    """Lagrange's weights of values at ``calls`` for the polynomial through them, taken at call ``at``."""
    return tuple((call, math.prod((at - other) / (call - other) for other in calls if other != call)) for call in calls)


def _lifetimes(
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
