"""Whose steps a pipeline runs under: the policy's solver and timesteps in place of the caller's."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from autotune.core.errors import InputError, PolicyError
from autotune.policy import Policy
from autotune.runtime.schedulers import (
    calls_per_step,
    explicit,
    is_flow,
    level,
    make_scheduler,
    reason_of,
    sigma_argument,
    with_spacing,
)

_SPACINGS = {"leading", "linspace", "trailing", "karras", "exponential", "beta"}


def scheduler_for(scheduler: Any, policy: Policy) -> Any:
    """The scheduler a policy runs under: the pipeline's own, or another in its place.

    Raises:
        PolicyError: the solver cannot stand in, or takes no such timesteps.
    """
    if policy.scheduler is not None:
        _check_same_training(scheduler, policy.scheduler.config)
        with _refused_settings(policy.scheduler.name):
            scheduler = make_scheduler(scheduler, policy.scheduler.name, policy.scheduler.config)
    if isinstance(policy.timesteps, str) and policy.timesteps in _SPACINGS:
        scheduler = with_spacing(scheduler, policy.timesteps)
    wanted: Literal["sigmas", "timesteps", None]
    wanted = "sigmas" if policy.sigmas is not None else "timesteps" if isinstance(policy.timesteps, tuple) else None
    if wanted is not None and not explicit(scheduler, wanted):
        raise PolicyError(
            f"{type(scheduler).__name__} takes no explicit {wanted}: name a spacing, or a scheduler that takes them"
        )
    return scheduler


def arguments_for(
    policy: Policy, pipe: Any, scheduler: Any, given: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of ``set_timesteps`` under ``policy``.

    Args:
        given: what the pipeline passes that the scheduler takes.
        extra: what it passes besides; another solver need not take it.

    Raises:
        InputError: the pipeline's caller asked for other steps than the policy's.
    """
    passed = {**given, **extra}
    sigmas, timesteps = passed.get("sigmas"), passed.get("timesteps")
    asked = passed.get("num_inference_steps")
    if asked is None:
        chosen = sigmas if sigmas is not None else timesteps
        asked = None if chosen is None else len(chosen)
    default = inspect.signature(type(pipe).__call__).parameters["num_inference_steps"].default
    # Flow pipelines spell their default out as sigmas.
    plain = sigmas is None or (len(sigmas) > 0 and np.allclose(sigmas, np.linspace(1.0, 1 / len(sigmas), len(sigmas))))
    if asked not in (None, default, policy.steps) or timesteps is not None or not plain:
        what = f"{asked} steps" if timesteps is None and plain else "timesteps of its own"
        raise InputError(
            f"the policy has {policy.steps} steps and the call asks for {what}: leave num_inference_steps, timesteps"
            " and sigmas out, or call remove_policy(pipe) first"
        )
    arguments = {key: value for key, value in given.items() if key not in ("sigmas", "timesteps")}
    arguments["num_inference_steps"] = policy.steps
    if policy.sigmas is not None:
        # As an array: some classes compute with it as it is.
        arguments |= {"sigmas": np.array(sigma_argument(scheduler, policy.sigmas)), "num_inference_steps": None}
    elif isinstance(policy.timesteps, tuple):
        arguments |= {"timesteps": list(policy.timesteps), "num_inference_steps": None}
    elif "sigmas" in given and sigmas is not None:
        arguments["sigmas"] = np.linspace(1.0, 1 / policy.steps, policy.steps)
        arguments.pop("num_inference_steps")
    return arguments


def count_calls(scheduler: Any, policy: Policy, pipe: Any) -> tuple[int, ...]:
    """How often the denoiser is called in each step, found on a copy of the scheduler.

    Raises:
        PolicyError: the scheduler cannot make such steps.
    """
    return try_steps(scheduler_for(scheduler, policy), policy, pipe)


def try_steps(scheduler: Any, policy: Policy, pipe: Any) -> tuple[int, ...]:
    """As :func:`count_calls`, for the scheduler the policy runs under; it is left as it is."""
    # Copied and not made anew: some classes take a second for that. Setting timesteps rebinds attributes.
    trial = copy.copy(scheduler)
    given: dict[str, Any] = {}
    if getattr(trial.config, "use_dynamic_shifting", False):
        given["mu"] = 1.0
    _check_listed(trial, policy)
    with _refused_settings(type(trial).__name__):
        # Of the class: the instance's method may have been replaced by one that leads back to a pipeline.
        type(trial).set_timesteps(trial, **arguments_for(policy, pipe, trial, given, {}))
    calls = calls_per_step(trial, policy.steps, len(trial.timesteps))
    _check_levels(trial, policy)
    return calls


# Keys that say which noise levels a denoiser was trained at, which no policy changes.
_TRAINING = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")


def _check_same_training(scheduler: Any, config: Mapping[str, Any]) -> None:
    for key in _TRAINING:
        if key in config and config[key] != scheduler.config.get(key):
            raise PolicyError(
                f"scheduler.config.{key}: {config[key]!r} is not what the model was trained with: leave it out"
            )


def _check_listed(scheduler: Any, policy: Policy) -> None:
    """Refuse explicit noise levels that the denoiser was never trained at."""
    if isinstance(policy.timesteps, tuple):
        # A flow's timesteps end at 1000, where its sigma is 1; a diffusion's begin at 0.
        last = scheduler.config.num_train_timesteps - (0 if is_flow(scheduler) else 1)
        if policy.timesteps[0] > last:
            raise PolicyError(
                f"timesteps: {policy.timesteps[0]} lies beyond {last}, the last that {type(scheduler).__name__} has:"
                " begin with that or less"
            )
    elif policy.sigmas is not None and is_flow(scheduler) and policy.sigmas[0] > 1:
        raise PolicyError(f"sigmas: {policy.sigmas[0]:g} lies beyond 1, pure noise in a flow: begin with that or less")


def _check_levels(scheduler: Any, policy: Policy) -> None:
    """Refuse steps that the scheduler makes but cannot take."""
    name = type(scheduler).__name__
    first = scheduler.timesteps[0]
    # Pipelines without a flow have the scheduler look up where it begins; of equal timesteps it takes the second.
    if not is_flow(scheduler) and hasattr(scheduler, "index_for_timestep") and scheduler.index_for_timestep(first) != 0:
        raise PolicyError(
            f"{name} begins with timestep {float(first):g} twice under this policy: use fewer steps, or noise levels"
            " further apart"
        )
    try:
        levels = [level(scheduler, call) for call in range(len(scheduler.timesteps))]
    except IndexError:
        raise PolicyError(
            f"{name} has no noise level for some of its {policy.steps} steps: use fewer steps or another spacing"
        ) from None
    if not all(math.isfinite(part) for pair in levels for part in pair):
        raise PolicyError(
            f"{name} makes noise levels that are not finite under this policy: use other timesteps or sigmas, or other"
            " scheduler settings"
        )


@contextmanager
def _refused_settings(name: str) -> Iterator[None]:
    """Schedulers refuse what they are given with exceptions of any class and length."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise PolicyError(
            f"{name} cannot run the policy's steps or settings ({reason_of(error)}): change them or"
            " use another scheduler"
        ) from None
