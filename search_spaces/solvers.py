"""Which solver walks through the noise levels, and whether it spends more of its steps on high or on low noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from autotune.core.errors import InputError
from autotune.policy import Policy, SchedulerChoice

MOST_SKEW = 4
"""The exponent of the noise levels doubles or halves over so many notches."""

Timesteps = Callable[[int], Sequence[int]]

# Of distilled models, whose few steps belong to the solver that they were distilled for.
_ALONE = {"LCMScheduler"}
# Second order at one call of the denoiser a step: Lu et al. 2022 (arXiv 2211.01095), Zhao et al. 2023 (2302.04867).
_CHOICES = (SchedulerChoice(name="DPMSolverMultistepScheduler"), SchedulerChoice(name="UniPCMultistepScheduler"))


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


def solvers_for(pipe: Any, steps: int) -> tuple[Solver, ...]:
    """The solvers that a pipeline runs under, its own first: those that it can call the way it calls its own.

    Args:
        pipe: A diffusers pipeline; its weights are not needed.
        steps: A number of steps that each is tried with.
    """
    from autotune.runtime.apply import plain_scheduler

    own = type(plain_scheduler(pipe)).__name__
    choices = () if own in _ALONE else tuple(choice for choice in _CHOICES if choice.name != own)
    found = (_solver(pipe, choice, steps) for choice in (None, *choices))
    return tuple(solver for solver in found if solver is not None)


def _solver(pipe: Any, choice: SchedulerChoice | None, steps: int) -> Solver | None:
    """The solver with all that it takes, or None where it does not run."""
    from autotune.runtime.apply import plain_scheduler
    from autotune.runtime.schedulers import is_flow
    from autotune.runtime.timesteps import count_calls

    scheduler = plain_scheduler(pipe)

    def runs(solver: Solver, skew: int) -> bool:
        policy = Policy(steps=steps, **solver.fields(skew, steps))
        try:
            count_calls(scheduler, policy, pipe)
        except InputError:
            return False
        return True

    plain = Solver(choice)
    if choice is not None and not runs(plain, 0):
        return None
    if is_flow(scheduler):
        # The shift applies to sigmas; timesteps would bypass it.
        skewed = Solver(choice, takes_sigmas=True)
    else:
        timesteps = _own_timesteps(scheduler, choice)
        if len(timesteps(steps)) != steps:
            # Second-order solvers list those of their calls.
            return plain
        skewed = Solver(choice, timesteps)
    return skewed if all(runs(skewed, skew) for skew in (-MOST_SKEW, MOST_SKEW)) else plain


def _own_timesteps(own: Any, choice: SchedulerChoice | None) -> Timesteps:
    @cache
    def timesteps(steps: int) -> Sequence[int]:
        from autotune.runtime.timesteps import scheduler_for

        # Setting timesteps rebinds attributes of the copy.
        scheduler = copy.copy(scheduler_for(own, Policy(steps=steps, scheduler=choice)))
        type(scheduler).set_timesteps(scheduler, num_inference_steps=steps)
        return [round(float(timestep)) for timestep in scheduler.timesteps]

    return timesteps
