"""Measured time of policies against the full run, taken in turn so that all see the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotune.core.errors import InputError
from autotune.policy import Policy


@dataclass(frozen=True)
class Timing:
    """Median seconds of one call, and the median over rounds of its time / the full run's."""

    seconds: float
    relative: float


def time_policies(
    run: Callable[[Policy], object], full: Policy, others: Sequence[Policy], *, rounds: int = 4
) -> tuple[Timing, ...]:
    """Time ``run`` under the full run and under each other policy.

    Each is called once without the clock, then ``rounds`` times in turn. Every other round goes
    backwards, so that a machine that slows down meanwhile favours nobody, and the median of the
    rounds' ratios shrugs off calls that something else on the machine disturbed.

    Args:
        run: A complete call that returns when its pictures are there.
        full: What the others are relative to.
        others: The policies to time.
        rounds: How often each is timed.

    Returns:
        The full run's timing (relative 1), then one for each of ``others``.

    Raises:
        InputError: ``rounds`` is below 1.
    """
    if rounds < 1:
        raise InputError(f"timing takes at least one round, not {rounds}")
    policies = (full, *others)
    for policy in policies:
        run(policy)
    taken = [_round(run, policies, backwards=bool(number % 2)) for number in range(rounds)]
    return tuple(
        Timing(
            seconds=statistics.median(times[index] for times in taken),
            relative=statistics.median(times[index] / times[0] for times in taken),
        )
        for index in range(len(policies))
    )


def _round(run: Callable[[Policy], object], policies: Sequence[Policy], *, backwards: bool) -> list[float]:
    """Seconds of each policy, in the order of ``policies`` whichever way they ran."""
    step = -1 if backwards else 1
    return [_seconds(run, policy) for policy in policies[::step]][::step]


def _seconds(run: Callable[[Policy], object], policy: Policy) -> float:
    started = time.perf_counter()
    run(policy)
    return time.perf_counter() - started
