"""When units compute: evenly, from a warm-up on, and again wherever nothing computed before can serve."""

from __future__ import annotations

PARTS = 20
"""Points in time are knobs in twentieths of the steps: the same value means the same at any step count."""


def at(twentieths: int, steps: int) -> int:
    """``twentieths`` of ``steps``, rounded to the nearest whole step, half up."""
    return (2 * twentieths * steps + PARTS) // (2 * PARTS)


def computing_steps(steps: int, *, interval: int, warm_up: int, switch: int = 0, start: int = 0) -> tuple[int, ...]:
    """The steps at which something computes that is reused in between.

    Args:
        steps: All steps.
        interval: Every how many steps, after the warm-up.
        warm_up: Steps at the beginning that all compute.
        switch: First step at full size, where features of the other size cannot serve; 0 where there is no switch.
        start: First step with guidance, whose second branch has no features yet.
    """
    warm_up = min(warm_up, switch or steps)
    compute = {*range(warm_up), *range(warm_up, switch or steps, interval)}
    if switch:
        # The intervals start again with the new size.
        compute |= set(range(switch, steps, interval))
    return tuple(sorted(compute | {start}))


def forecast_order(order: int, compute: tuple[int, ...], steps: int, *, switch: int = 0, start: int = 0) -> int:
    """The order that a forecast ever reaches: one that finds too few computed steps behind it means a lower one."""
    computing = set(compute)
    behind = [
        sum(max(since for since in (0, switch, start) if since <= step) <= each < step for each in compute)
        for step in range(steps)
        if step not in computing
    ]
    return min(order, max(behind, default=1) - 1)
