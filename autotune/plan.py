"""Policy + structure of a denoiser -> plan: for every step, what every unit does. Pure data.

Pricing and running read the same plan; that is why a price is exact.
"""

from __future__ import annotations

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
    NOT_NEEDED = 2


@dataclass(frozen=True)
class Step:
    """One denoising step.

    ``branches`` is 2 where the conditional and the unconditional branch are computed, else 1.
    ``actions`` has one entry per unit. ``keep`` are the units whose output some later step
    reuses before they compute again; ``drop`` those whose kept output is not read after this
    step. ``handoff`` names how the latents reach the next stage's size after this step.
    """

    index: int
    height: int
    width: int
    branches: int
    actions: tuple[Action, ...]
    keep: frozenset[int]
    drop: frozenset[int]
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
    rules = [(structure.resolve(rule.units), frozenset(rule.compute_steps)) for rule in policy.cache]

    actions: list[tuple[Action, ...]] = []
    for index in range(policy.steps):
        fresh = index == 0 or sizes[index] != sizes[index - 1] or branches[index] > branches[index - 1]
        reused = frozenset() if fresh else frozenset().union(*(u for u, steps in rules if index not in steps))
        needed = structure.needed(reused)
        actions.append(
            tuple(
                Action.NOT_NEEDED if unit not in needed else Action.REUSE if unit in reused else Action.COMPUTE
                for unit in range(len(structure.units))
            )
        )

    keep, drop = _lifetimes(actions)
    stage_ends = {stage.until_step - 1: stage.handoff for stage in policy.resolution}
    return Plan(
        structure,
        tuple(
            Step(index, *sizes[index], branches[index], actions[index], keep[index], drop[index], stage_ends.get(index))
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


def _lifetimes(actions: list[tuple[Action, ...]]) -> tuple[list[frozenset[int]], list[frozenset[int]]]:
    """For each step, which outputs to keep and which kept ones nobody reads any more."""
    keep: list[set[int]] = [set() for _ in actions]
    drop: list[set[int]] = [set() for _ in actions]
    for unit in range(len(actions[0])):
        computed = last_read = -1
        for index, step in enumerate(actions):
            if step[unit] is Action.REUSE:
                keep[computed].add(unit)
                last_read = index
            if step[unit] is Action.COMPUTE or index == len(actions) - 1:
                # The kept output, if there is one, has just been superseded or outlived its use.
                if last_read > computed:
                    drop[last_read].add(unit)
                computed = index
    return [frozenset(units) for units in keep], [frozenset(units) for units in drop]
