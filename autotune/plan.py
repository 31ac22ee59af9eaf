"""Policy + structure of a denoiser -> plan: for every step, what every unit does. Pure data.

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


class Action(IntEnum):
    """What a unit does in a step."""

    COMPUTE = 0
    REUSE = 1
    FORECAST = 2
    NOT_NEEDED = 3


@dataclass(frozen=True)
class Step:
    """One denoising step.

    ``branches`` is 2 where the conditional and the unconditional branch are computed, else 1.
    ``actions`` has one entry per unit. ``sources`` says for every unit that reuses or forecasts
    which of its earlier outputs it takes: pairs of the step they were computed in and their
    weight, summing to 1. ``keep`` are the units whose output of this step is taken later;
    ``drop`` the kept outputs (unit, step) that nobody takes after this step. ``handoff`` names
    how the latents reach the next stage's size after this step.
    """

    index: int
    height: int
    width: int
    branches: int
    actions: tuple[Action, ...]
    sources: Mapping[int, tuple[tuple[int, float], ...]]
    keep: frozenset[int]
    drop: frozenset[tuple[int, int]]
    handoff: str | None


@dataclass(frozen=True)
class Plan:
    structure: Structure
    steps: tuple[Step, ...]


def latent_size(full: int, scale: float, multiple: int) -> int:
    """The latents' side length at ``scale``.

    Raises:
        PolicyError: it is not a whole multiple of what the denoiser accepts.
    """
    size = Fraction(scale).limit_denominator(1000) * full
    if size.denominator != 1 or size % multiple or size == 0:
        valid = [n for n in range(multiple, full, multiple)]
        scales = ", ".join(f"{n / full:.4g}" for n in valid)
        raise PolicyError(
            f"resolution scale {scale:g} gives latents of {float(size):g} a side, this denoiser takes multiples of"
            f" {multiple}: use one of {scales or 'no other scale at this size'}"
        )
    return int(size)


def compile_plan(policy: Policy, structure: Structure, height: int, width: int, *, guided: bool = True) -> Plan:
    """Make ``policy`` explicit for latents of ``height`` x ``width``.

    ``guided`` says whether the call uses classifier-free guidance at all; without it every
    step has one branch. Where features of an earlier step cannot serve (first step, another
    resolution, a branch that did not run before) every unit computes, whatever the policy says.

    Raises:
        PolicyError: a unit the denoiser does not have, or a scale it does not accept.
    """
    sizes = _sizes(policy, structure, height, width)
    branches = [_branches(policy, index) if guided else 1 for index in range(policy.steps)]
    rules = [(structure.resolve(rule.units), frozenset(rule.compute_steps), rule.order or 0) for rule in policy.cache]

    actions: list[tuple[Action, ...]] = []
    sources: list[dict[int, tuple[tuple[int, float], ...]]] = []
    computed: dict[int, list[int]] = {}
    for index in range(policy.steps):
        if index == 0 or sizes[index] != sizes[index - 1] or branches[index] > branches[index - 1]:
            computed = {unit: [] for unit in range(len(structure.units))}
            orders: dict[int, int] = {}
        else:
            orders = {unit: order for units, steps, order in rules if index not in steps for unit in units}
        needed = structure.needed(frozenset(orders))
        taken = {
            unit: _weights(computed[unit][-1 - order :], index) for unit, order in orders.items() if unit in needed
        }
        for unit in needed - set(orders):
            computed[unit].append(index)
        actions.append(tuple(_action(unit, needed, taken) for unit in range(len(structure.units))))
        sources.append(taken)

    keep, drop = _lifetimes(sources)
    stage_ends = {stage.until_step - 1: stage.handoff for stage in policy.resolution}
    return Plan(
        structure,
        tuple(
            Step(
                index,
                *sizes[index],
                branches[index],
                actions[index],
                sources[index],
                keep[index],
                drop[index],
                stage_ends.get(index),
            )
            for index in range(policy.steps)
        ),
    )


def _sizes(policy: Policy, structure: Structure, height: int, width: int) -> list[tuple[int, int]]:
    sizes: list[tuple[int, int]] = []
    for stage in policy.resolution:
        size = tuple(latent_size(full, stage.scale, structure.size_multiple) for full in (height, width))
        sizes += [(size[0], size[1])] * (stage.until_step - len(sizes))
    return sizes + [(height, width)] * (policy.steps - len(sizes))


def _branches(policy: Policy, index: int) -> int:
    guidance = policy.guidance
    return 2 if guidance is None or guidance.start_step <= index < guidance.stop_step else 1


def _action(unit: int, needed: frozenset[int], taken: Mapping[int, tuple[tuple[int, float], ...]]) -> Action:
    if unit not in needed:
        return Action.NOT_NEEDED
    if unit not in taken:
        return Action.COMPUTE
    return Action.REUSE if len(taken[unit]) == 1 else Action.FORECAST


def _weights(steps: Sequence[int], at: int) -> tuple[tuple[int, float], ...]:
    """Lagrange's weights of values at ``steps`` for the polynomial through them, taken at step ``at``."""
    return tuple((step, math.prod((at - other) / (step - other) for other in steps if other != step)) for step in steps)


def _lifetimes(
    sources: Sequence[Mapping[int, tuple[tuple[int, float], ...]]],
) -> tuple[list[frozenset[int]], list[frozenset[tuple[int, int]]]]:
    """For each step, whose output to keep, and which kept outputs (unit, step) nobody takes any more."""
    last_taken = {
        (unit, step): index for index, taken in enumerate(sources) for unit, terms in taken.items() for step, _ in terms
    }
    keep: list[set[int]] = [set() for _ in sources]
    drop: list[set[tuple[int, int]]] = [set() for _ in sources]
    for (unit, step), index in last_taken.items():
        keep[step].add(unit)
        drop[index].add((unit, step))
    return [frozenset(units) for units in keep], [frozenset(outputs) for outputs in drop]
