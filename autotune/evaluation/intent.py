"""What a policy means to do, apart from how it saves: the exact run of the same intent.

A policy changes pictures on purpose, by when guidance runs, and by approximation: fewer steps, another solver, reuse,
forecasts, low resolution. The exact run has all steps, the pipeline's own solver and full size, reuses nothing, and is
guided where the policy is. What of a policy's pictures differs from the exact run's, from the same noise, is error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autotune.core.errors import InputError
from autotune.policy import Policy, lowest_version
from autotune.policy.techniques import Guidance
from autotune.runtime.timesteps import scheduler_for, try_steps

# Halves, which divisions of noise levels miss by their last bits, are rounded up.
_ROUNDING = 1e-6

Levels = Callable[[Policy], Sequence[float]]
"""The noise level at which each step of a policy begins, falling: on any scale that ends at 0."""


def exact_policy(policy: Policy, full: Policy, *, levels: Levels | None = None) -> Policy:
    """The exact run of a policy's intent: ``full`` itself where the policy leaves guidance alone.

    Guidance is switched between two steps, and the middle of these is what is brought to the full run's: long steps
    take the guidance of where they begin, and pictures of a few are nearest to those of a full run that is switched
    well before (``studies.proxy.intents`` measures it). No coarser grid than the full run's steps serves: moving
    guidance by an eighth of the trajectory changes pictures more than what is measured, saving, does
    (``studies.proxy.validity`` compares grids).

    Args:
        policy: The policy.
        full: The full run.
        levels: Noise levels of steps; by default :func:`plain_levels`.

    Example:
        >>> full = autotune.Policy(steps=20)
        >>> policy = autotune.Policy(steps=6, guidance={"start_step": 2, "stop_step": 5})
        >>> exact_policy(policy, full).id
        's20-g6_16'
        >>> exact_policy(autotune.Policy(steps=6), full).id
        's20'
    """
    if policy.guidance is None:
        return full
    levels = levels or plain_levels
    own, whole = levels(policy), levels(full)
    first, last = (switched(own, step, whole) for step in (policy.guidance.start_step, policy.guidance.stop_step))
    start, stop = (math.floor(each + 0.5 + _ROUNDING) for each in (first, last))
    if policy.guidance.stop_step < policy.steps:
        # Guidance in the last step changes pictures most: what stops before it still does.
        stop = min(stop, full.steps - 1)
    if start >= stop:
        # Shorter than a step of the full run: the nearest one.
        start = min(math.floor((first + last) / 2), full.steps - 1)
        stop = start + 1
    if start == 0 and stop == full.steps and policy.guidance.factor is None:
        return full
    factor = policy.guidance.factor
    guidance = Guidance(start_step=start, stop_step=stop, factor=factor)
    return full.model_copy(
        update={"guidance": guidance, "version": max(full.version, lowest_version(None, (), guidance))}
    )


def is_exact(policy: Policy, full: Policy) -> bool:
    """Whether a policy approximates nothing: it is the full run but for its guidance."""
    held = {"after": "nothing", "compute_steps": None}
    guidance = None if policy.guidance is None else policy.guidance.model_copy(update=held)
    return policy.key == full.model_copy(update={"guidance": guidance}).key


def switched(own: Sequence[float], step: int, whole: Sequence[float]) -> float:
    """Before which step of the full run, in parts of one, is switched what another run switches before one of its own.

    The noise levels in the middle between the last step before and the first one after are the same in both.

    Args:
        own: Noise levels of the other's steps, falling.
        step: From 0 to their number.
        whole: Noise levels of the full run's steps, falling.
    """
    if step == 0 or step >= len(own):
        return 0.0 if step == 0 else float(len(whole))
    middle = (own[step - 1] + own[step]) / 2
    if middle >= whole[0]:
        return 0.0
    ends = [*whole, min(0.0, whole[-1])]
    return float(np.interp(-middle, [-level for level in ends], np.arange(len(ends)))) + 0.5


def plain_levels(policy: Policy) -> Sequence[float]:
    """As far as the policy alone says them: explicit timesteps or noise levels, else an even spacing."""
    if not isinstance(policy.timesteps, str):
        largest = max(policy.timesteps[0], 1)
        return [timestep / largest for timestep in policy.timesteps]
    if policy.sigmas is not None:
        # A flow's noise levels are its timesteps; others' grow without bound.
        return [sigma if policy.sigmas[0] <= 1 else sigma / (1 + sigma) for sigma in policy.sigmas]
    return [1 - step / policy.steps for step in range(policy.steps)]


def levels_in(pipe: Any) -> Levels:
    """Noise levels as the pipeline's scheduler or the policy's own makes them: the timesteps it gives the denoiser.

    Where they do not fall, as some schedulers count them upwards, and of policies that pipelines refuse, they are
    :func:`plain_levels`.
    """

    def levels(policy: Policy) -> Sequence[float]:
        try:
            scheduler, calls = try_steps(scheduler_for(pipe.scheduler, policy), policy, pipe)
        except InputError:
            return plain_levels(policy)
        firsts = [sum(calls[:step]) for step in range(len(calls))]
        found = [float(scheduler.timesteps[first]) for first in firsts]
        falling = all(before > after for before, after in zip(found, found[1:], strict=False))
        return found if falling else plain_levels(policy)

    return levels
