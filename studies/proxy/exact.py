"""The exact run of a policy's intent: all steps, own solver, full size, nothing reused, the policy's own guidance.

What a policy means to do to pictures is its guidance interval; everything else it does is an approximation. Against the
pictures of its exact run, from the same noise, only the approximation shows.
"""

from __future__ import annotations

import math

from autotune.evaluation.intent import exact_policy
from autotune.policy import Guidance, Policy

_TRAINING_STEPS = 1000


def exact_run(policy: Policy, full_steps: int) -> Policy:
    """The exact run of ``policy`` as searches have it.

    Args:
        policy: With timesteps spaced evenly, or listed.
        full_steps: Of the full run, whose timesteps are spaced evenly.
    """
    return exact_policy(policy, Policy(steps=full_steps))


def snapped_run(policy: Policy, full_steps: int, every: int) -> Policy:
    """The exact run of ``policy`` with guidance from the nearest multiple of ``every`` steps to another.

    Guidance that stops before the last step still does, for guidance in the last steps changes pictures most.

    Args:
        policy: With timesteps spaced evenly, or listed for a model of 1,000 training steps.
        full_steps: Of the full run, whose timesteps are spaced evenly; a multiple of ``every``.
        every: Steps of the full run.
    """
    if policy.guidance is None:
        return Policy(steps=full_steps)
    start, stop = (
        every * math.floor(_share(policy, step) * full_steps / every + 0.5)
        for step in (policy.guidance.start_step, policy.guidance.stop_step)
    )
    start = min(start, full_steps - every)
    if every > 1 and policy.guidance.stop_step < policy.steps:
        stop = min(stop, full_steps - every)
    stop = min(max(stop, start + every), full_steps)
    whole = start == 0 and stop == full_steps
    return Policy(steps=full_steps, guidance=None if whole else Guidance(start_step=start, stop_step=stop))


def _share(policy: Policy, step: int) -> float:
    """How much of the way from noise to picture lies before ``step``."""
    if step >= policy.steps:
        return 1.0
    if isinstance(policy.timesteps, str):
        return step / policy.steps
    return (_TRAINING_STEPS - 1 - policy.timesteps[step]) / _TRAINING_STEPS
