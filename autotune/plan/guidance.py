"""Which branches of classifier-free guidance each call of the denoiser computes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from autotune.policy import Policy


class Guided(IntEnum):
    """What a call of the denoiser computes where the pipeline's call is guided.

    BOTH branches; the conditional one alone, from which the last DIFFERENCE of the branches gives the other; or the
    CONDITIONAL one alone, which stands for both.
    """

    CONDITIONAL = 0
    DIFFERENCE = 1
    BOTH = 2


def guidance_of(policy: Policy, steps: Sequence[int], sizes: Sequence[tuple[int, int]], start: int) -> list[Guided]:
    """What each call from ``start`` on computes.

    A difference serves at the size it was computed at. So both branches are computed in the first step with guidance
    at every size, whatever the policy says, and in all calls of a step that second-order solvers call twice in.

    Args:
        steps: the policy's step that each call belongs to.
        sizes: height and width of the latents in each of the policy's steps.
        start: the first call that is made.
    """
    found: list[Guided] = []
    last: int | None = None  # The step in which both were computed last.
    for step in steps[start:]:
        if last is not None and sizes[last] != sizes[step]:
            last = None
        if not _is_guided(policy, step):
            found.append(Guided.CONDITIONAL)
        elif last is None or last == step or _computes_both(policy, step):
            found.append(Guided.BOTH)
            last = step
        else:
            found.append(Guided.DIFFERENCE)
    return found


def _is_guided(policy: Policy, step: int) -> bool:
    """Whether a policy lets guidance run in a step of a call that is guided."""
    guidance = policy.guidance
    return guidance is None or guidance.start_step <= step < guidance.stop_step


def _computes_both(policy: Policy, step: int) -> bool:
    """Whether a policy asks for both branches in a step with guidance."""
    guidance = policy.guidance
    return guidance is None or guidance.compute_steps is None or step in guidance.compute_steps
