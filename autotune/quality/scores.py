"""What an objective says of a policy, and the short way to the weights of its first three terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.core.interval import Interval
from autotune.quality.panel import ALIGNMENT, DISTANCE, Panel
from autotune.quality.panel import FIDELITY as FIDELITY_JUDGE

__all__ = ["FIDELITY", "QUALITY", "Intervals", "Score", "Weights"]


@dataclass(frozen=True)
class Weights:
    """Weights of the three terms that need no exact runs; see :mod:`autotune.quality.objective`."""

    fd: float = 1.0
    clip: float = 4.0
    fidelity: float = 0.0

    @property
    def panel(self) -> Panel:
        return Panel({DISTANCE: self.fd, ALIGNMENT: self.clip, FIDELITY_JUDGE: self.fidelity})


QUALITY = Weights()
"""What releases before panels judged by."""

FIDELITY = Weights(0.0, 0.0, 1.0)
"""Asks for the pictures that one had."""


@dataclass(frozen=True)
class Score:
    """One policy's result. ``alignment``: higher is better; all others: lower is better.

    Attributes:
        loss: The objective.
        distance: To the reference, in the estimator's unit.
        alignment: Mean cosine with the prompts; None where there are none.
        fidelity: Mean feature distance to the full run's pictures, 0 to 2.
        error: Difference from the exact run of the same intent, 0, to its coarse pictures, 1; the mean over the judges
            of pairs, None where there are none.
        terms: Of the loss, by judge: 0 is the full run, 1 is lost.
    """

    loss: float
    distance: float
    alignment: float | None
    fidelity: float
    error: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Intervals:
    """The intervals that belong to a ``Score``."""

    loss: Interval
    distance: Interval
    alignment: Interval | None
    fidelity: Interval
    error: Interval | None = None
