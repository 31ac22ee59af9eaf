"""Policies as configurations of the caches in diffusers, for ``transformer.enable_cache``.

Of these ``TaylorSeerCacheConfig`` says most: named modules give what they gave, its order 0, or the line through what
they gave last, order 1, but in the steps up to some step, every so many steps after it, and from a later step on.
Pyramid Attention Broadcast is its order 0 on attention layers, but that it counts calls: of two branches of guidance
one gets what the other gave. First-block caches, MagCache and FasterCache decide or blend as no policy does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from autotune.core.errors import InputError
from autotune.engines.refusals import EngineError, check_no_weights, check_steps, lever_of, reusing
from autotune.plan import compile_plan
from autotune.plan.plan import Action
from autotune.plan.structure import Structure
from autotune.policy import Policy

NAME = "diffusers"


def diffusers_config(
    policy: Policy, structure: Structure, denoiser: str, modules: Sequence[str], *, calls: Sequence[int] | None = None
) -> str:
    """A JSON document: the class of the configuration, its arguments, and the number of steps to call for.

    Args:
        policy: The policy.
        structure: Of the denoiser it is for.
        denoiser: Name of its class.
        modules: Names of all of its modules; none where it has no ``enable_cache``.
        calls: How often the scheduler has the denoiser called in each step; once by default.

    Raises:
        InputError: diffusers has no caches for the denoiser, or the policy needs none.
        EngineError: they lack a lever that the policy pulls.
    """
    if not modules:
        raise InputError(f"{denoiser} has no enable_cache: the caches of diffusers do not serve it")
    check_steps(policy, NAME, calls or [1] * policy.steps)
    rules = reusing(policy)
    if not rules:
        raise InputError("the policy reuses nothing: call the pipeline with its number of steps, without a cache")
    rule, units = rules[0], dict[int, int]()
    for each in rules:
        lever = lever_of(each, structure)
        if each.mode == "residual":
            raise EngineError(NAME, lever, "its caches keep outputs, not what blocks add to their inputs")
        check_no_weights(each, NAME)
        if (each.mode, each.order, each.compute_steps) != (rule.mode, rule.order, rule.compute_steps):
            raise EngineError(NAME, lever, "all modules of its cache compute in the same steps and to the same order")
        units |= structure.resolve(each.units)
    if rule.order == 2:
        raise EngineError(NAME, "forecasting", "its second order is not the parabola through the last three")
    interval, before, after = _window(rule.compute_steps, policy.steps, lever_of(rule, structure))
    arguments: dict[str, Any] = {
        "cache_interval": interval,
        "disable_cache_before_step": before,
        "disable_cache_after_step": after,
        "max_order": rule.order or 0,
        "taylor_factors_dtype": "float32",
        "cache_identifiers": [re.escape(structure.units[unit].name) for unit in sorted(units)],
    }
    resting = next(step for step in range(policy.steps) if step not in rule.compute_steps)
    if skipped := _not_needed(policy, structure, units, resting):
        arguments["skip_predict_identifiers"] = [re.escape(name) for name in skipped]
    document = {"TaylorSeerCacheConfig": arguments, "num_inference_steps": policy.steps, "policy": policy.id}
    return json.dumps(document, indent=2) + "\n"


def _window(compute: Sequence[int], steps: int, lever: str) -> tuple[int, int, int | None]:
    """Interval, first step that may rest, and the one from which on all compute again, that make these steps.

    Raises:
        EngineError: none do.
    """
    wanted = set(compute)
    begin = next(step for step in range(steps) if step not in wanted)
    end = next(step for step in reversed(range(steps)) if step not in wanted) + 1
    for after in (None, end) if end < steps else (None,):
        # Multiples of the interval need -1: otherwise the one after the first step that may rest computes.
        for before in range(-1, begin + 1):
            for interval in range(1, steps + 1):
                made = {
                    step
                    for step in range(steps)
                    if step < before or (step - before - 1) % interval == 0 or (after is not None and step >= after)
                }
                if made == wanted:
                    return interval, before, after
    raise EngineError(NAME, lever, "its caches compute every so many steps, not in any steps that a policy lists")


def _not_needed(policy: Policy, structure: Structure, units: Collection[int], step: int) -> list[str]:
    """Names of the units that nobody reads in ``step``, without those inside of others or of the reused ``units``."""
    multiple = structure.size_multiple
    actions = compile_plan(policy, structure, multiple, multiple, guided=False).steps[step].actions
    idle = {unit for unit, action in enumerate(actions) if action is Action.NOT_NEEDED} | set(units)

    def inside(unit: int) -> bool:
        outer = structure.parents[unit]
        return outer is not None and (outer in idle or inside(outer))

    return [structure.units[unit].name for unit in sorted(idle - set(units)) if not inside(unit)]
