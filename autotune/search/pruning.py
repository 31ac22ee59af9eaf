"""Giving up on a candidate before all of its pictures are made.

Most candidates are not worth all pictures, and the best ones are worth more than would be affordable for all. Each
is judged on its first pictures, then on twice as many and so on, and goes on where it is among the better half of those
judged so far: asynchronous successive halving (Li et al. 2020, MLSys), by Optuna's pruner. All candidates make the
same pictures in the same order, so they are compared on equal terms. One that is behind the best candidate beyond
doubt, which a paired comparison tells, is given up whatever its rank.
"""

from __future__ import annotations

import optuna
from optuna.pruners import SuccessiveHalvingPruner

from autotune.quality import Evaluation, Objective

LEAST = 32
"""Pictures before which nobody gives up: fewer say too little of a distance."""

LEVEL = 0.98
"""Of the interval that must lie above zero. Every batch is another chance to be wrong, so above the usual 0.95."""

_HALVES = 2
_RESAMPLES = 400


def pruner() -> SuccessiveHalvingPruner:
    """What a study needs for :meth:`PairedPruner.should_prune`; its resource are pictures."""
    return SuccessiveHalvingPruner(min_resource=LEAST, reduction_factor=_HALVES)


def usual_share(pictures: int) -> float:
    """Share of its pictures that a candidate makes on average where half of those left end at every comparison.

    Example:
        >>> usual_share(256)  # (32 / 2 + 64 / 4 + 128 / 8 + 256 / 8) / 256
        0.3125
    """
    made, left, spent = LEAST, 1.0, 0.0
    while made < pictures:
        spent, left, made = spent + made * left / _HALVES, left / _HALVES, made * _HALVES
    return (spent + pictures * left) / pictures


class PairedPruner:
    """Decides batch by batch whether a candidate goes on.

    Args:
        objective: Of all pictures.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    def should_prune(self, trial: optuna.Trial, partial: Evaluation, best: Evaluation | None) -> bool:
        """Whether to give up on a candidate that has made some of its pictures.

        Args:
            trial: Is told the loss of these pictures.
            partial: Their evaluation.
            best: The best candidate's, of all pictures, if there is one.
        """
        made = len(partial)
        if made < LEAST:
            return False
        trial.report(self._objective.head(made).score(partial).loss, step=made)
        return trial.should_prune() or (best is not None and self._behind(partial, best))

    def _behind(self, partial: Evaluation, best: Evaluation) -> bool:
        made = len(partial)
        same = best.head(made)
        return self._objective.head(made).compare(partial, same, resamples=_RESAMPLES, level=LEVEL).low > 0
