"""Giving up on a candidate before all of its pictures are made: once it is behind the best one beyond doubt.

Both made the same pictures, so they are compared in pairs, batch by batch, as racing algorithms do (Maron and Moore
1994; irace, Lopez-Ibanez et al. 2016).
"""

from __future__ import annotations

from functools import lru_cache

from autotune.quality import Evaluation, Objective

LEAST = 16
"""Pictures before which nobody gives up: fewer say too little of a distance."""

LEVEL = 0.98
"""Of the interval that must lie above zero. Every batch is another chance to be wrong, so above the usual 0.95."""

_RESAMPLES = 400


class Race:
    """Compares candidates with the best one so far, on the pictures both have.

    Args:
        objective: Of all pictures.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._head = lru_cache(maxsize=8)(objective.head)

    def lost(self, partial: Evaluation, best: Evaluation) -> bool:
        """Whether a candidate, judged on its first pictures, is worse than ``best``, which has all of them."""
        made = len(partial.alignment)
        if made < LEAST:
            return False
        same = Evaluation(best.features[:made], best.alignment[:made])
        difference = self._head(made).compare(partial, same, resamples=_RESAMPLES, level=LEVEL)
        return difference.low > 0
