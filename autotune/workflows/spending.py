"""What a search spent on pictures, and what it spared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from autotune.search.candidate_scores import PICTURES
from autotune.search.trial_runner import EXACT, SKIPPED
from autotune.study.trials import attributes


@dataclass(frozen=True)
class Spending:
    """FLOPs of the denoiser.

    Attributes:
        candidates: How many were evaluated.
        pictures: How many were made of them.
        spent: On these.
        skipped: Not spent on these, because calls went on from where others that began alike stood.
        all: What all pictures of all candidates take.
        exact: Besides, on exact runs that candidates are compared with.
    """

    candidates: int
    pictures: int
    spent: int
    skipped: int
    all: int
    exact: int = 0

    @property
    def exact_share(self) -> float:
        """Of exact runs, as a share of all that was spent."""
        return self.exact / (self.spent + self.exact) if self.exact else 0.0

    @property
    def share(self) -> float:
        """What was spent, as a share of what all pictures of all candidates take; 1 where there are none."""
        return self.spent / self.all if self.all else 1.0


def spending(trials: Iterable[FrozenTrial], pictures: int) -> Spending:
    """Add up evaluated trials.

    Args:
        trials: Failed ones count for nothing.
        pictures: How many a candidate has at most.
    """
    found = [given for given in map(attributes, trials) if PICTURES in given]
    made = sum(given[PICTURES] for given in found)
    skipped = sum(given.get(SKIPPED, 0) for given in found)
    plain = sum(given[PICTURES] * given["flops"] for given in found)
    exact = sum(given.get(EXACT, 0) for given in found)
    whole = sum(pictures * given["flops"] for given in found)
    return Spending(len(found), made, plain - skipped, skipped, whole, exact)
