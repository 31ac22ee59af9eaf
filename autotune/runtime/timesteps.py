"""Whose steps a pipeline runs under: the policy's solver and timesteps in place of the caller's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from autotune.errors import InputError, PolicyError
from autotune.policy import Policy
from autotune.runtime.schedulers import calls_per_step, explicit, make_scheduler, sigma_argument, with_spacing

_SPACINGS = {"leading", "linspace", "trailing", "karras", "exponential", "beta"}


def scheduler_for(scheduler: Any, policy: Policy) -> Any:
    """The scheduler a policy runs under: the pipeline's own, or another in its place.

    Raises:
        PolicyError: the solver cannot stand in, or takes no such timesteps.
    """
    if policy.scheduler is not None:
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
    plain = sigmas is None or np.allclose(sigmas, np.linspace(1.0, 1 / len(sigmas), len(sigmas)))
    if asked not in (None, default, policy.steps) or timesteps is not None or not plain:
        what = f"{asked} steps" if timesteps is None and plain else "timesteps of its own"
        raise InputError(
            f"the policy has {policy.steps} steps and the call asks for {what}: leave num_inference_steps, timesteps"
            " and sigmas out, or call remove_policy(pipe) first"
        )
    arguments = {key: value for key, value in given.items() if key not in ("sigmas", "timesteps")}
    arguments["num_inference_steps"] = policy.steps
    if policy.sigmas is not None:
        arguments |= {"sigmas": sigma_argument(scheduler, policy.sigmas), "num_inference_steps": None}
    elif isinstance(policy.timesteps, tuple):
        arguments |= {"timesteps": list(policy.timesteps), "num_inference_steps": None}
    elif "sigmas" in given and sigmas is not None:
        arguments["sigmas"] = np.linspace(1.0, 1 / policy.steps, policy.steps)
        arguments.pop("num_inference_steps")
    return arguments


def count_calls(scheduler: Any, policy: Policy, pipe: Any) -> tuple[int, ...]:
    """How often the denoiser is called in each step, found on a scheduler of the same config."""
    # Made anew and not copied: a scheduler under a policy has methods that lead back to its pipeline.
    trial = scheduler_for(type(scheduler).from_config(scheduler.config), policy)
    given: dict[str, Any] = {}
    if getattr(trial.config, "use_dynamic_shifting", False):
        given["mu"] = 1.0
    trial.set_timesteps(**arguments_for(policy, pipe, trial, given, {}))
    return calls_per_step(trial, policy.steps, len(trial.timesteps))
