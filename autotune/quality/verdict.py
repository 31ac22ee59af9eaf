"""What a verdict on finalists says. How it is found, :mod:`autotune.quality.simultaneous` says.

Nothing here loads torch, for those who only read verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotune.core.interval import Interval

__all__ = ["LEAST_PROMPTS", "Verdict"]

LEAST_PROMPTS = 8
"""Different prompts, or other inputs, without which nothing is said to be beyond doubt.

From six on the study's equals are called better in less than 2.5 % of repeats; two more leave room for doubt.
"""


@dataclass(frozen=True)
class Verdict:
    """What held-out pictures say of the finalists against their rival.

    Attributes:
        best: Place of the finalist that is judged.
        difference: Its loss minus the rival's, with an interval that is right although it was chosen.
        prompts: Different prompts that it was seen on.
    """

    best: int
    difference: Interval
    prompts: int

    @property
    def enough(self) -> bool:
        """Whether there are prompts enough to be sure of anything."""
        return self.prompts >= LEAST_PROMPTS

    @property
    def better(self) -> bool:
        """Whether the best finalist beats the rival beyond doubt."""
        return self.enough and self.difference.high < 0
