"""A floor under quality, in place of a budget or within one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autotune.options.declare import OptionError, Topic, option
from autotune.quality.floor import Floor


@dataclass(frozen=True, kw_only=True)
class FloorOptions:
    """How much quality may drop; None of both is a search for the best within a budget."""

    max_loss: float | None = option(
        None,
        "Cheapest policy with a held-out loss of at most X, for certain.",
        topic=Topic.BUDGET,
        shown="none",
        least=0,
    )
    max_change: float | None = option(
        None,
        "The same of the change that --objective fidelity measures.",
        topic=Topic.BUDGET,
        shown="none",
        least=0,
    )

    @property
    def floor(self) -> Floor | None:
        """What is asked for."""
        if self.max_loss is None and self.max_change is None:
            return None
        return Floor(self.max_loss, self.max_change)

    def __post_init__(self) -> None:
        """Refuse what no policy can hold.

        Raises:
            OptionError: a floor is negative or no number.
        """
        for name in ("max_loss", "max_change"):
            most = getattr(self, name)
            if most is not None and not 0 <= most < math.inf:
                raise OptionError(f"<{name}> is {most:g}; give 0, which is the full run's own, or more")
