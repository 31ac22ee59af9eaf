"""Hill climbing on the error of final latents: where steps lie, and in which of them a rule computes.

The error of eight pictures' latents ranks policies of one intent well and costs little (BudCache, arXiv 2606.13496,
anneals and climbs on it). A policy keeps its number of steps and of computing steps here, and so, but for rules that
unlike units share, its price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autotune.policy import CacheRule, Policy

__all__ = ["Polished", "computing_step_shifts", "noise_level_shifts", "polished"]

Error = Callable[[Policy], float]
Neighbours = Callable[[Policy], Iterator[Policy]]

_SIGMA_DIGITS = 6


@dataclass(frozen=True)
class Polished:
    """What climbing led to.

    Attributes:
        policy: The best that was found.
        error: Its error.
        before: The error of the policy that it set out from.
        evaluations: How many policies' errors were asked for.
    """

    policy: Policy
    error: float
    before: float
    evaluations: int


def polished(policy: Policy, error: Error, neighbours: Neighbours, evaluations: int) -> Polished:
    """Take every neighbour that is better, until none is or the evaluations are spent.

    Args:
        policy: Where to set out.
        error: To be lowered. It is asked for each policy once.
        neighbours: Of a policy, those most likely better first. After a gain it is asked again, for the better one's.
        evaluations: Most policies whose error is asked for, the first one included; at least one.
    """
    known = {policy.key: error(policy)}
    before = known[policy.key]
    improving = True
    while improving:
        improving = False
        for neighbour in neighbours(policy):
            if neighbour.key in known:
                continue
            if len(known) >= evaluations:
                return Polished(policy, known[policy.key], before, len(known))
            known[neighbour.key] = error(neighbour)
            if known[neighbour.key] < known[policy.key]:
                policy, improving = neighbour, True
                break
    return Polished(policy, known[policy.key], before, len(known))


def computing_step_shifts(policy: Policy) -> Iterator[Policy]:
    """One computing step of one rule a step earlier or later, then one moved to any other place.

    What must compute stays: the first step, and those at which a resolution or guidance begins.
    """
    start = policy.guidance.start_step if policy.guidance is not None else 0
    fixed = {0, start, *(stage.until_step for stage in policy.resolution)}

    def moved(number: int, step: int, to: int) -> Policy:
        rule = policy.cache[number]
        steps = tuple(sorted({*rule.compute_steps, to} - {step}))
        changed = CacheRule(**{**dict(rule), "compute_steps": steps})
        return Policy(**{**dict(policy), "cache": (*policy.cache[:number], changed, *policy.cache[number + 1 :])})

    for near in (True, False):
        for number, rule in enumerate(policy.cache):
            free = [step for step in range(1, policy.steps) if step not in rule.compute_steps]
            for step in rule.compute_steps:
                if step not in fixed:
                    yield from (moved(number, step, to) for to in free if (abs(to - step) == 1) is near)


def noise_level_shifts(policy: Policy) -> Iterator[Policy]:
    """One of the listed timesteps or sigmas a half, then a quarter and an eighth of the way to one of its neighbours.

    The first, which is pure noise, stays. Of a policy that lists neither there is none.
    """
    listed = policy.sigmas or (policy.timesteps if isinstance(policy.timesteps, tuple) else ())
    for share in (0.5, 0.25, 0.125):
        for number in range(1, len(listed)):
            following = listed[number + 1] if number + 1 < len(listed) else 0
            for neighbour in (listed[number - 1], following):
                level = listed[number] + share * (neighbour - listed[number])
                level = round(level, _SIGMA_DIGITS) if policy.sigmas else round(level)
                if listed[number - 1] > level > following and level != listed[number]:
                    levels = (*listed[:number], level, *listed[number + 1 :])
                    yield Policy(**{**dict(policy), "sigmas" if policy.sigmas else "timesteps": levels})
