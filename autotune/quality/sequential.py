"""When a last round may end: looks at some of the held-out pictures, and what each may say.

A round looks at its pictures up to three times and ends where the verdict is known. To look more often is to be fooled
more often, so every look's intervals are wider: the errors that all looks may make together are the 5 % of one look
(Bonferroni; Jennison and Turnbull 2000, *Group Sequential Methods*, chapters 2 and 9, call them repeated confidence
intervals). Early looks get a fifth of them each, which leaves the last one nearly as sharp as a single look.

Where nothing is found yet a round also ends if it can hardly find anything any more: this never makes a policy better.
Nor does dropping finalists that can hardly turn out to be the best, as long as intervals allow for those dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from autotune.core.interval import Interval

__all__ = ["Look", "chance_below", "looks", "promise"]

# Pictures of the early looks. A distance of fewer is mostly bias.
_EARLY = (128, 256)
# An early look that spares less than a third of the pictures is not worth its errors.
_SPARED = 1 / 3

_ERRORS, _EARLY_ERRORS = 0.05, 0.01

HOPELESS = 0.05
"""Probability of a better verdict below which a round ends without one."""

OUT_OF_IT = 0.1
"""Probability of ending ahead of the best below which a finalist is dropped."""


@dataclass(frozen=True)
class Look:
    """A moment at which a round may end.

    Attributes:
        pictures: Made of each run by then.
        level: Of its intervals: what they hold with.
    """

    pictures: int
    level: float


def looks(inputs: Sequence[str]) -> tuple[Look, ...]:
    """The looks at pictures of these inputs, in their order; the last is at all of them.

    Every look sees all inputs equally often, as intervals over inputs ask for.

    Args:
        inputs: What each picture was asked for; where it repeats, all inputs come in turn.

    Example:
        >>> [(look.pictures, round(look.level, 3)) for look in looks([f"prompt {i}" for i in range(480)])]
        [(128, 0.99), (256, 0.99), (480, 0.97)]
        >>> [(look.pictures, look.level) for look in looks(["a prompt", "another"] * 50)]
        [(100, 0.95)]
    """
    count, different = len(inputs), len(set(inputs))
    turn = 1 if different == count else different
    rounded = {math.ceil(pictures / turn) * turn for pictures in _EARLY}
    early = sorted(pictures for pictures in rounded if pictures <= (1 - _SPARED) * count)
    last = 1 - _ERRORS + _EARLY_ERRORS * len(early)
    return (*(Look(pictures, 1 - _EARLY_ERRORS) for pictures in early), Look(count, last))


def promise(seen: Interval, look: Look, last: Look, below: float = 0.0) -> float:
    """Probability that the interval of the last look will lie below a number, by what an earlier one saw.

    Args:
        seen: The difference and its interval at ``look``.
        look: Some pictures.
        last: All of them.
        below: What the upper end must not reach.

    The difference that is still unseen is drawn around the one seen so far, with the uncertainty of both (predictive
    power; Spiegelhalter, Freedman and Blackburn 1986).
    """
    final_error = _error(seen, look) * math.sqrt(look.pictures / last.pictures)
    return chance_below(seen, look, last, below - _reach(last.level) * final_error)


def chance_below(seen: Interval, look: Look, last: Look, below: float = 0.0) -> float:
    """Probability that the difference itself will be below a number at the last look; see :func:`promise`."""
    unseen = _error(seen, look) * math.sqrt(1 - look.pictures / last.pictures)
    if not unseen:
        return float(seen.value < below)
    return NormalDist().cdf((below - seen.value) / unseen)


def _error(seen: Interval, look: Look) -> float:
    """Standard error of a difference, by its interval."""
    return (seen.high - seen.value) / _reach(look.level)


def _reach(level: float) -> float:
    """Standard errors from an estimate to the end of its interval."""
    return NormalDist().inv_cdf((1 + level) / 2)
