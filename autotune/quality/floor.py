"""The cheapest policy that loses at most so much: which are tested, in which order, and when one is certified.

A floor is certified of a policy where the upper end of its held-out 95 % interval lies at or below it. To test many
policies is to be fooled more often, so they are tested in a *fixed sequence*, chosen on tuning pictures: from the
dearest, which surely holds the floor, to the cheapest, and testing stops at the first that fails. To certify any policy
that truly breaks the floor, the test of the first such policy in the sequence must err, which it does with 2.5 % at
most. So no interval is widened for the number of policies, however their losses depend on one another (Maurer, Hothorn
and Lehmacher 1995; Westfall and Krishen 2001). What errs with 2.5 % at most is the sentence "its loss is at most the
floor", not that it is at most the interval's own end.

Pictures are looked at up to three times (:mod:`autotune.quality.sequential`). Each look has its share of the 2.5 %, so
each test errs with 2.5 % over all looks, and what a look has passed stays passed (Glimm, Maurer and Bretz 2010). Two
more rules only ever refuse: a round ends early where the next test can hardly succeed any more, and what is certified
must hold the floor in all pictures that were made in the end.

Two floors at once hold where each does; a test of both at the full level errs no more than one (Berger 1982).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from autotune.core.interval import Interval
from autotune.quality.sequential import HOPELESS, Look, promise

__all__ = ["SURE", "Bounded", "Certified", "Floor", "certify", "expected", "sequence"]

TESTED = 6
"""Policies in a sequence at most."""

SURE = 0.99
"""What :func:`expected` says at least of a policy that surely holds a floor."""

_LEVEL = 0.95


@dataclass(frozen=True)
class Floor:
    """The most that quality may drop. None is no such floor; at least one is given.

    Attributes:
        loss: Of the search's own loss: 0 is the full run.
        change: Of the pictures, in the unit of ``--objective fidelity``: 0 are the full run's pictures, 1 is as far
            from them as coarse ones.
    """

    loss: float | None = None
    change: float | None = None

    def __str__(self) -> str:
        return " and ".join(f"{name} {most:g}" for name, most in self.bounds.items())

    @property
    def bounds(self) -> dict[str, float]:
        """Those that are given, by name."""
        found = {"loss": self.loss, "change": self.change}
        return {name: most for name, most in found.items() if most is not None}


@dataclass(frozen=True)
class Bounded:
    """What was seen of one floor: an interval, and the most that its upper end may be."""

    name: str
    interval: Interval
    most: float

    @property
    def holds(self) -> bool:
        """Whether the floor is certified."""
        return self.interval.high <= self.most


@dataclass(frozen=True)
class Certified:
    """What the tests of a sequence found.

    Attributes:
        place: Of the cheapest policy that was certified; None where none was.
        refused: Of the first that was not; None where all were.
        look: The last one.
    """

    place: int | None
    refused: int | None
    look: Look


def certify(count: int, planned: Sequence[Look], seen: Callable[[int, Look], Sequence[Bounded]]) -> Certified:
    """Test a sequence of policies from its dearest on.

    Args:
        count: How many there are.
        planned: The looks.
        seen: Of the policy at a place, what the pictures of a look say; none where it may not win.
    """
    passed, look = -1, planned[-1]
    for look in planned:
        while passed + 1 < count and _holds(seen(passed + 1, look)):
            passed += 1
        if passed + 1 == count or _hopeless(seen(passed + 1, look), look, planned[-1]):
            break
    refused = passed + 1 if passed + 1 < count else None
    while passed >= 0 and not _holds(seen(passed, look)):
        refused, passed = passed, passed - 1
    return Certified(passed if passed >= 0 else None, refused, look)


def _holds(bounds: Sequence[Bounded]) -> bool:
    return bool(bounds) and all(each.holds for each in bounds)


def _hopeless(bounds: Sequence[Bounded], look: Look, last: Look) -> bool:
    return not bounds or any(
        not each.holds and promise(each.interval, look, last, each.most) < HOPELESS for each in bounds
    )


def expected(bounds: Sequence[Bounded], pictures: int, last: Look) -> float:
    """Probability that held-out pictures will certify a policy, by what tuning pictures say of it.

    Args:
        bounds: Each with its 95 % interval on tuning pictures.
        pictures: How many these were.
        last: The last look at held-out ones.

    Both the truth and what the held-out pictures show of it are uncertain. Of two floors it is the less likely one's.
    """
    reach, chances = _reach(last.level), [1.0]
    for each in bounds:
        error = (each.interval.high - each.interval.low) / 2 / _reach(_LEVEL)
        later = error * math.sqrt(pictures / last.pictures)
        room = each.most - each.interval.value - reach * later
        spread = math.hypot(error, later)
        chances.append(NormalDist().cdf(room / spread) if spread else float(room >= 0))
    return min(chances)


def sequence(costs: Sequence[float], chances: Sequence[float], most: int = TESTED) -> list[int]:
    """Which candidates are tested, as numbers, the dearest first.

    Of two that cost the same, or of which one is the dearer and the less likely to be certified, only the better takes
    part. The sequence begins with the second cheapest that is sure of it, for the cheapest may owe that to luck, or
    with the likeliest, and ends with the cheapest that has any chance. Where none has any, the likeliest is tested
    alone, so that it is known by how much it fails.

    Args:
        costs: Of the candidates.
        chances: What :func:`expected` says of each.
        most: How many to test.

    Example:
        >>> sequence([10, 20, 30, 40, 50, 60], [0.01, 0.3, 0.2, 0.992, 0.995, 0.999])
        [4, 3, 1]
    """
    front: list[int] = []
    for number in sorted(range(len(costs)), key=lambda each: (costs[each], -chances[each])):
        if not front or chances[number] > chances[front[-1]]:
            front.append(number)
    hopeful = [number for number in front if chances[number] >= HOPELESS] or front[-1:]
    sure = next((place for place, number in enumerate(hopeful) if chances[number] >= SURE), len(hopeful) - 1)
    tested = hopeful[: sure + 2][::-1]
    if len(tested) <= most:
        return tested
    return [tested[round(place * (len(tested) - 1) / (most - 1))] for place in range(most)]


def _reach(level: float) -> float:
    """Standard errors from an estimate to the end of its interval."""
    return NormalDist().inv_cdf((1 + level) / 2)
