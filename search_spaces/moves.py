"""One small random change of a policy's explicit schedule: the moves of a local search.

Knobs describe schedules by a few numbers; from the best of them on, single decisions are tried: which step computes,
where a stage or guidance ends, where a noise level lies. The number of steps stays.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from autotune.policy import CacheRule, Policy

__all__ = ["moved"]

# A noise level moves by this share of the way to its neighbour.
_SHARE = 0.35
_SIGMA_DIGITS = 6

Fields = dict[str, Any]
Move = Callable[[Policy, random.Random], Fields | None]


def moved(policy: Policy, draw: random.Random) -> Policy | None:
    """The policy after one move, or None where the one that was drawn is not possible.

    Args:
        policy: Its noise levels move too where they are a list. Guidance as a rate stays as it is, and so do fitted
            forecasts.
        draw: Decides the kind of move, each as likely as the others, and then the move.
    """
    kinds: list[Move] = []
    # Weights are of the steps they were fitted to.
    fitted = [rule.weights is not None for rule in policy.cache]
    if not all(fitted):
        kinds.append(_computing_step)
    if policy.resolution and not any(fitted):
        kinds.append(_stage)
    if policy.guidance is not None and policy.guidance.compute_steps is None:
        kinds.append(_guidance)
    if isinstance(policy.timesteps, tuple) or policy.sigmas is not None:
        kinds.append(_noise_level)
    if not kinds:
        return None
    changes = draw.choice(kinds)(policy, draw)
    return None if changes is None else Policy(**{**dict(policy), **changes})


def _computing_step(policy: Policy, draw: random.Random) -> Fields | None:
    """Something computes in one step more, one less, or in another step."""
    number = draw.choice([number for number, rule in enumerate(policy.cache) if rule.weights is None])
    rule = policy.cache[number]
    fixed = {
        0,
        *(stage.until_step for stage in policy.resolution),
        policy.guidance.start_step if policy.guidance else 0,
    }
    movable = [step for step in rule.compute_steps if step not in fixed]
    free = [step for step in range(1, policy.steps) if step not in rule.compute_steps]
    kind = draw.choice(("more", "less", "other"))
    steps = set(rule.compute_steps)
    if kind != "less" and free:
        steps.add(draw.choice(free))
    if kind != "more" and movable:
        steps.remove(draw.choice(movable))
    if steps == set(rule.compute_steps):
        return None
    changed = CacheRule(**{**dict(rule), "compute_steps": tuple(sorted(steps))})
    return {"cache": _replaced(policy.cache, number, changed if len(steps) < policy.steps else None)}


def _stage(policy: Policy, draw: random.Random) -> Fields | None:
    """A stage of low resolution ends a step earlier or later."""
    number = draw.randrange(len(policy.resolution))
    stage = policy.resolution[number]
    until = stage.until_step + draw.choice((-1, 1))
    before = policy.resolution[number - 1].until_step if number else 0
    after = policy.resolution[number + 1].until_step if number + 1 < len(policy.resolution) else policy.steps
    if not before < until < after:
        return None
    changed = stage.model_copy(update={"until_step": until})

    def follow(rule: CacheRule) -> CacheRule:
        # What computes at the old switch for its sake does so at the new one.
        steps = {until if step == stage.until_step else step for step in rule.compute_steps}
        return CacheRule(**{**dict(rule), "compute_steps": tuple(sorted({0, *steps}))})

    return {
        "resolution": _replaced(policy.resolution, number, changed),
        "cache": tuple(follow(rule) for rule in policy.cache),
    }


def _guidance(policy: Policy, draw: random.Random) -> Fields | None:
    """Guidance begins or ends a step earlier or later."""
    assert policy.guidance is not None
    start, stop = policy.guidance.start_step, policy.guidance.stop_step
    by = draw.choice((-1, 1))
    if start and draw.random() < 0.5:
        start += by
    else:
        stop += by
    last = policy.steps - (policy.guidance.after != "nothing")
    if not 0 <= start < stop <= last:
        return None
    return {"guidance": policy.guidance.model_copy(update={"start_step": start, "stop_step": stop})}


def _noise_level(policy: Policy, draw: random.Random) -> Fields | None:
    """A noise level moves towards one of its neighbours; the first one, which is pure noise, stays."""
    if policy.steps < 2:
        return None
    number, up = draw.randrange(1, policy.steps), draw.random() < 0.5
    if policy.sigmas is not None:
        sigma = round(_towards(policy.sigmas, number, up=up), _SIGMA_DIGITS)
        return {"sigmas": _replaced(policy.sigmas, number, sigma)} if _between(policy.sigmas, number, sigma) else None
    assert isinstance(policy.timesteps, tuple)
    timestep = round(_towards(policy.timesteps, number, up=up))
    if timestep == policy.timesteps[number] or not _between(policy.timesteps, number, timestep):
        return None
    return {"timesteps": _replaced(policy.timesteps, number, timestep)}


def _towards(levels: Sequence[float], number: int, *, up: bool) -> float:
    following = levels[number + 1] if number + 1 < len(levels) else 0.0
    neighbour = levels[number - 1] if up else following
    return levels[number] + _SHARE * (neighbour - levels[number])


def _between(levels: Sequence[float], number: int, level: float) -> bool:
    return levels[number - 1] > level > (levels[number + 1] if number + 1 < len(levels) else 0)


def _replaced(items: tuple[Any, ...], number: int, item: Any | None) -> tuple[Any, ...]:
    return (*items[:number], *(() if item is None else (item,)), *items[number + 1 :])
