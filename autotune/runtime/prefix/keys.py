"""How far two plans do the same, and what a plan must find to go on from where another one stood. Pure.

Two runs with the same prompts, seeds and settings share their trajectory as long as everything that decides it is
the same; see :mod:`autotune.runtime.prefix.sharing` for how that spares denoiser calls.
"""

from __future__ import annotations

import hashlib
from typing import Any

from autotune.plan import Action, Plan
from autotune.policy import Policy

Feature = tuple[int, int, int | None]
"""A kept result: the unit, the call it was computed in, and the first block of its range where it is a residual."""


def same_noise_levels(one: Policy, other: Policy) -> bool:
    """Whether two policies run under the same solver with the same timesteps, as they must to share any step."""
    fields = ("steps", "scheduler", "timesteps", "sigmas")
    return all(getattr(one, field) == getattr(other, field) for field in fields)


def shared_steps(one: Plan, other: Plan) -> int:
    """How many calls of the denoiser two plans have in common from the start.

    Both must be of the same denoiser, size and use of guidance, and of policies with :func:`same_noise_levels`:
    what a scheduler makes of a call may depend on any of its timesteps, later ones too.
    """
    if one.structure is not other.structure:
        return 0
    count = 0
    while count < min(len(one.steps), len(other.steps)) and _call_signature(one, count) == _call_signature(
        other, count
    ):
        count += 1
    return count


def prefix_keys(plan: Plan, setting: str) -> tuple[str, ...]:
    """For every number of calls from 0 on a digest of all that decides the state after them.

    Args:
        plan: of a pipeline call from its first denoiser call on.
        setting: what else decides it, the solver and all of its timesteps above all.
    """
    digest = hashlib.sha256(setting.encode())
    keys = [digest.hexdigest()]
    for position in range(len(plan.steps)):
        digest.update(repr(_call_signature(plan, position)).encode())
        keys.append(digest.hexdigest())
    return tuple(keys)


def features_read(plan: Plan, calls: int) -> frozenset[Feature]:
    """Results of the first ``calls`` calls that later ones take."""
    return frozenset(
        (unit, source, plan.residuals.get(unit))
        for step in plan.steps[calls:]
        for unit, terms in step.sources.items()
        for source, _ in terms
        if source < plan.steps[calls].index
    )


def shapes_read(plan: Plan, calls: int) -> frozenset[int]:
    """Units that are not needed in some later call before they compute again: their output's shape is."""
    units: set[int] = set()
    computed: set[int] = set()
    for step in plan.steps[calls:]:
        units |= {unit for unit, action in enumerate(step.actions) if action is Action.NOT_NEEDED} - computed
        computed.update(step.pattern.computed)
    return frozenset(units)


def _call_signature(plan: Plan, position: int) -> tuple[Any, ...]:
    """Everything about one call that decides what comes out of it and of the scheduler's step after it."""
    step = plan.steps[position]
    size_after = None
    if step.handoff is not None:
        following = plan.steps[position + 1]
        size_after = (following.height, following.width)
    firsts = tuple(plan.residuals[unit] for unit, action in enumerate(step.actions) if action is Action.RESIDUAL)
    sources = tuple(sorted(step.sources.items()))
    branches = (step.branches, plan.reuses_difference(position), plan.factor(position))
    return (step.height, step.width, branches, bytes(step.actions), sources, firsts, step.handoff, size_after)
