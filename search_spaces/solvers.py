"""Which solver walks through the noise levels, and whether it spends more of its steps on high or on low noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.policy import SchedulerChoice

MOST_SKEW = 4
"""The exponent of the noise levels doubles or halves over so many notches."""

Timesteps = Callable[[int], Sequence[int]]


@dataclass(frozen=True)
class Solver:
    """A solver, and what it is told where its noise levels are skewed.

    Attributes:
        choice: Another scheduler than the pipeline's; None is the pipeline's own.
        timesteps: The timesteps that it chooses itself for a number of steps; None where it takes no list of them.
        takes_sigmas: Whether it takes a list of a flow's sigmas.
    """

    choice: SchedulerChoice | None = None
    timesteps: Timesteps | None = None
    takes_sigmas: bool = False

    @property
    def name(self) -> str:
        """For recipes: ``UniPC``, or ``own solver``."""
        if self.choice is None:
            return "own solver"
        return self.choice.name.removesuffix("Scheduler").removesuffix("Multistep")

    @property
    def skews(self) -> bool:
        """Whether its noise levels can be skewed."""
        return self.timesteps is not None or self.takes_sigmas

    def fields(self, skew: int, steps: int) -> Mapping[str, Any]:
        """What a policy of ``steps`` steps says of solver and noise levels.

        Args:
            skew: The noise levels' exponent in doublings per :data:`MOST_SKEW`: above 0 more of them are low,
                below 0 more are high, 0 leaves them to the scheduler.
            steps: Number of steps.
        """
        own = {} if self.choice is None else {"scheduler": self.choice}
        skewed = self.listed(steps, skew)
        return own if not skew or skewed == self.listed(steps) else {**own, **skewed}

    def listed(self, steps: int, skew: int = 0) -> Mapping[str, Any]:
        """Its ``timesteps`` or ``sigmas`` one by one as a policy lists them; empty where it takes no list."""
        exponent = 2 ** (skew / MOST_SKEW)
        if self.timesteps is not None:
            return {"timesteps": tuple(skewed_timesteps(self.timesteps(steps), exponent))}
        if self.takes_sigmas:
            return {"sigmas": tuple(round((1 - step / steps) ** exponent, 6) for step in range(steps))}
        return {}


OWN = Solver()


def skewed_timesteps(timesteps: Sequence[int], exponent: float) -> list[int]:
    """Falling timesteps t as ``first * (t / first) ** exponent``, whole, all different, none above the first.

    Example:
        >>> skewed_timesteps([999, 749, 499, 249], 2.0)
        [999, 562, 249, 62]
    """
    first, count = timesteps[0], len(timesteps)
    if first < count:
        # Every timestep is taken already.
        return list(timesteps)
    skewed: list[int] = []
    for index, timestep in enumerate(timesteps):
        # Room is left for as many different ones as follow.
        most = skewed[-1] - 1 if skewed else first
        skewed.append(min(max(round(first * (timestep / first) ** exponent), count - 1 - index), most))
    return skewed
