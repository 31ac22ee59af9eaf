"""Policy + structure of a denoiser -> plan. Pure: nothing here knows of a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from autotune.plan.guidance import Guided, guidance_of
from autotune.plan.lifetimes import lifetimes_of, sources_of
from autotune.plan.plan import Action, DenoiserCall, Pattern, Plan
from autotune.plan.rules import REMEMBERED, resolve_rules, units_of
from autotune.plan.sizes import sizes_of
from autotune.plan.structure import Structure
from autotune.policy import Policy


def compile_plan(
    policy: Policy,
    structure: Structure,
    height: int,
    width: int,
    *,
    guided: bool = True,
    branches: int = 2,
    calls: Sequence[int] | None = None,
    start: int = 0,
) -> Plan:
    """Make ``policy`` explicit for latents of ``height`` x ``width``.

    Where features of an earlier call cannot serve (first call, another resolution, a branch
    that did not run before) every unit computes, whatever the policy says. In a call that computes
    both branches, units take what they computed last in such a call: a difference of branches from
    features of different ages would be one of ages too.

    Args:
        guided: whether the call uses classifier-free guidance at all; without it every step has one branch.
        branches: of a step with guidance; some pipelines weigh more than two.
        calls: how often the scheduler has the denoiser called in each step; once by default.
        start: the first call that is made; image-to-image leaves out those before.

    Raises:
        PolicyError: a unit the denoiser does not have, a scale it does not accept, or weights of a result that is not
            computed.
    """
    steps = [step for step, count in enumerate(calls or [1] * policy.steps) for _ in range(count)]
    sizes = sizes_of(policy, structure, height, width)
    guidance = guidance_of(policy, steps, sizes, start)
    factor = 1.0 if policy.guidance is None else policy.guidance.factor or 1.0
    counts = [branches if guided and each is Guided.BOTH else 1 for each in guidance]
    rules = resolve_rules(policy, structure)

    fresh: list[bool] = []
    patterns: list[Pattern] = []
    most = 0  # branches of a call since nothing before could serve
    for call, count in enumerate(counts, start):
        step, before = steps[call], steps[call - 1]
        fresh.append(call == start or sizes[step] != sizes[before] or count > most)
        most = count if fresh[-1] else most
        reading = [] if fresh[-1] else [(rule.names, rule.mode) for rule in rules if step not in rule.compute_steps]
        patterns.append(_pattern(structure, tuple(reading)))
    taken = sources_of(rules, patterns, fresh, counts, steps, start)
    kept, dropped = lifetimes_of(taken, start)
    stage_ends = {stage.until_step - 1: stage.handoff for stage in policy.resolution}
    last_call = {step: call for call, step in enumerate(steps)}
    return Plan(
        structure,
        tuple(
            DenoiserCall(
                call,
                step := steps[call],
                *sizes[step],
                guided_as := guidance[call - start],
                1.0 if guided_as is Guided.CONDITIONAL else factor,
                counts[call - start],
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


@lru_cache(maxsize=REMEMBERED)
def _pattern(structure: Structure, reading: tuple[tuple[tuple[str, ...], str], ...]) -> Pattern:
    """What the units do when those that ``reading`` names, each with its mode, do not compute."""
    modes = {unit: (mode, first) for names, mode in reading for unit, first in units_of(structure, names).items()}
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
