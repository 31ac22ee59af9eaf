"""How many steps image-to-image leaves out: the more of the given picture is to be kept, the later it begins."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from autotune.core.errors import InputError
from autotune.policy import MAX_STEPS

STRENGTH = "strength"


def strength_of(pipe: Any, call: Mapping[str, Any]) -> float | None:
    """The strength of a call with these arguments; None where the pipeline takes none."""
    parameter = inspect.signature(type(pipe).__call__).parameters.get(STRENGTH)
    return None if parameter is None else call.get(STRENGTH, parameter.default)


def skipped_steps(pipe: Any, steps: int, strength: float | None) -> int:
    """How many of a run's first steps a call of this strength leaves out.

    Found by the pipeline's own ``get_timesteps``, for pipelines round in different ways.

    Raises:
        InputError: the pipeline takes a strength and has no such method.
    """
    if strength is None:
        return 0
    method = getattr(type(pipe), "get_timesteps", None)
    if method is None:
        raise InputError(f"{type(pipe).__name__} does not say how many steps a strength leaves; it cannot be priced")
    scheduler = SimpleNamespace(timesteps=list(range(steps)), order=1, set_begin_index=lambda index: None)
    timesteps, _ = method(SimpleNamespace(scheduler=scheduler), steps, strength, "cpu")
    return steps - len(timesteps)


def fewest_steps(pipe: Any, strength: float | None) -> int:
    """The fewest steps of a run of which a call of this strength executes one.

    Raises:
        InputError: no number of steps is enough.
    """
    for steps in range(1, MAX_STEPS + 1):
        if skipped_steps(pipe, steps, strength) < steps:
            return steps
    raise InputError(f"strength is {strength}; give a number above 0 and up to 1")
