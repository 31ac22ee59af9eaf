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
from autotune.pipelines.families import LatentSize, SchedulerCalls, family_of, scheduler_calls
from autotune.pipelines.families.scheduling import told
from autotune.policy import Policy
from autotune.runtime.compatibility import check_solver
from autotune.runtime.schedulers import (
    calls_per_step,
    is_flow,
    level,
    reason_of,
    shifts_dynamically,
    sigma_argument,
)
from autotune.runtime.substitutes import TRAINING_KEYS, explicit, make_scheduler, with_spacing

_SPACINGS = {"leading", "linspace", "trailing", "karras", "exponential", "beta"}
# Arguments of ``set_timesteps`` that a scheduler need not take: the policy has its own, or there is no shift to make.
_REPLACED = {"sigmas", "timesteps", "num_inference_steps", "device", "mu"}


def scheduler_for(scheduler: Any, policy: Policy) -> Any:
    """The scheduler a policy runs under: the pipeline's own, or another in its place.

    Raises:
        PolicyError: the solver cannot stand in, or takes no such timesteps.
    """
    if policy.scheduler is not None:
        _check_same_training(scheduler, policy.scheduler.config)
        with refused_settings(policy.scheduler.name):
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
        InputError: the pipeline's caller asked for other steps than the policy's, or for something that is lost under
            the policy's solver.
    """
    passed = {**given, **extra}
    sigmas, timesteps = passed.get("sigmas"), passed.get("timesteps")
    asked = passed.get("num_inference_steps")
    if asked is None:
        chosen = sigmas if sigmas is not None else timesteps
        asked = None if chosen is None else len(chosen)
    default = inspect.signature(type(pipe).__call__).parameters["num_inference_steps"].default
    calls, trained = scheduler_calls(pipe) or SchedulerCalls(), scheduler.config.num_train_timesteps
    plain = _is_plain(calls, trained, sigmas, timesteps)
    if asked not in (None, default, policy.steps) or not plain:
        what = f"{asked} steps" if plain else "timesteps of its own"
        raise InputError(
            f"the policy has {policy.steps} steps and the call asks for {what}: leave num_inference_steps, timesteps"
            " and sigmas out, or call remove_policy(pipe) first"
        )
    arguments = {key: value for key, value in given.items() if key not in ("sigmas", "timesteps")}
    if not shifts_dynamically(scheduler):
        # Then the pipeline's own scheduler ignores it, but some classes refuse it.
        arguments.pop("mu", None)
    lost = next((key for key in extra.keys() - _REPLACED if extra[key] is not None), None)
    if lost is not None:
        raise InputError(
            f"{type(pipe).__name__} passes {lost}={extra[lost]!r} to its scheduler, which"
            f" {type(scheduler).__name__} does not take: leave {lost} out of the call, or the solver out of the policy"
        )
    arguments["num_inference_steps"] = policy.steps
    if policy.sigmas is not None:
        # As an array: some classes compute with it as it is.
        arguments |= {"sigmas": np.array(sigma_argument(scheduler, policy.sigmas)), "num_inference_steps": None}
        if calls.tells_timesteps:
            arguments |= told(trained * np.array(policy.sigmas), trained)
    elif isinstance(policy.timesteps, tuple):
        arguments |= {"timesteps": list(policy.timesteps), "num_inference_steps": None}
        if calls.tells_timesteps:
            arguments |= told(policy.timesteps, trained)
    elif "sigmas" in given and sigmas is not None:
        arguments |= calls.spelled(trained, policy.steps)
        arguments.pop("num_inference_steps")
    return arguments


def _is_plain(calls: SchedulerCalls, trained: int, sigmas: Any, timesteps: Any) -> bool:
    """Whether these lists are what the pipeline itself spells out for a number of steps, or none."""
    given = {"sigmas": sigmas, "timesteps": timesteps}
    lengths = {len(values) for values in given.values() if values is not None}
    if not lengths:
        return True
    spelled = calls.spelled(trained, max(lengths)) if 0 not in lengths and len(lengths) == 1 else {}
    return spelled.keys() == {name for name, values in given.items() if values is not None} and all(
        np.allclose(given[name], values) for name, values in spelled.items()
    )


def count_calls(scheduler: Any, policy: Policy, pipe: Any) -> tuple[int, ...]:
    """How often the denoiser is called in each step, found on a copy of the pipeline's own scheduler.

    Raises:
        PolicyError: the pipeline cannot run under the policy's solver, or the solver cannot make such steps.
    """
    return solver_under(policy, pipe, scheduler)[1]


def solver_under(policy: Policy, pipe: Any, own: Any) -> tuple[Any, tuple[int, ...]]:
    """The scheduler a pipeline runs under, and how often the denoiser is called in each step.

    Args:
        own: the pipeline's own scheduler; it is left as it is.

    Raises:
        PolicyError: the pipeline cannot run under the policy's solver, or the solver cannot make such steps.
    """
    with _named(pipe, policy):
        scheduler = scheduler_for(own, policy)
        check_solver(pipe, own, scheduler)
        return scheduler, try_steps(scheduler, policy, pipe)[1]


def try_steps(scheduler: Any, policy: Policy, pipe: Any, size: LatentSize | None = None) -> tuple[Any, tuple[int, ...]]:
    """A copy of the scheduler with the policy's timesteps set as the pipeline sets them, and the calls of each step.

    Args:
        scheduler: what the policy runs under; it is left as it is.
        size: of the latents; the model's native size by default.

    Raises:
        PolicyError: the scheduler cannot make such steps.
    """
    # Copied and not made anew: some classes take a second for that. Setting timesteps rebinds attributes, and some
    # classes write the shift into their config.
    trial = copy.copy(scheduler)
    trial._internal_dict = type(scheduler.config)(scheduler.config)
    _check_listed(trial, policy)
    with refused_settings(type(trial).__name__):
        given, extra = _split(trial, _passed(trial, policy, pipe, size))
        # Of the class: the instance's method may have been replaced by one that leads back to a pipeline.
        type(trial).set_timesteps(trial, **arguments_for(policy, pipe, trial, given, extra))
    calls = calls_per_step(trial, policy.steps, len(trial.timesteps))
    described = scheduler_calls(pipe) or SchedulerCalls()
    _check_levels(trial, policy, looked_up=not described.sets_begin)
    if described.tells_timesteps:
        _check_as_told(pipe.scheduler, trial, given.get("mu"))
    elif is_flow(trial):
        _check_told(trial)
    return trial, calls


def _passed(scheduler: Any, policy: Policy, pipe: Any, size: LatentSize | None) -> dict[str, Any]:
    """What the pipeline passes to ``set_timesteps``, as far as it is known."""
    calls = scheduler_calls(pipe)
    if calls is None:
        return {"mu": 1.0} if shifts_dynamically(scheduler) else {}
    family, tokens = family_of(pipe), 0
    if calls.mu != "never":
        tokens = family.image_tokens(pipe, size or family.latent_size(pipe, *family.native_size(pipe)))
    return calls.set_timesteps(scheduler, policy.steps, tokens)


def _split(scheduler: Any, passed: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments that ``set_timesteps`` takes, and others."""
    taken = inspect.signature(type(scheduler).set_timesteps).parameters
    given = {key: value for key, value in passed.items() if key in taken}
    return given, {key: value for key, value in passed.items() if key not in taken}


def _check_same_training(scheduler: Any, config: Mapping[str, Any]) -> None:
    for key in TRAINING_KEYS:
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


def _check_levels(scheduler: Any, policy: Policy, *, looked_up: bool) -> None:
    """Refuse steps that the scheduler makes but cannot take, or that are not those of the noise levels it is told.

    Args:
        looked_up: whether the scheduler looks up at which index it begins.
    """
    name = type(scheduler).__name__
    first = scheduler.timesteps[0]
    # Of equal timesteps the second is found.
    if looked_up and hasattr(scheduler, "index_for_timestep") and scheduler.index_for_timestep(first) != 0:
        raise PolicyError(
            f"{name} begins with timestep {float(first):g} twice under this policy: use fewer steps, or noise levels"
            " further apart"
        )
    try:
        levels = [level(scheduler, call) for call in range(len(scheduler.timesteps) + 1)]
    except IndexError:
        raise PolicyError(
            f"{name} has no noise level for some of its {policy.steps} steps: use fewer steps or another spacing"
        ) from None
    if not all(math.isfinite(part) for pair in levels[:-1] for part in pair):
        raise PolicyError(
            f"{name} makes noise levels that are not finite under this policy: use other timesteps or sigmas, or other"
            " scheduler settings"
        )
    left = levels[-1][1] / math.hypot(*levels[-1])
    if policy.scheduler is not None and left > (_LEFT_IN_FLOW if is_flow(scheduler) else _LEFT):
        raise PolicyError(
            f"{name} would leave noise in the pictures, {left:.0%} of what it returns in the end: use another scheduler"
        )


# The share of noise in what the last step returns, where that is no longer what is seen of a model's least noise: 3 %
# in a diffusion, 1 % in a flow.
_LEFT, _LEFT_IN_FLOW = 0.05, 0.02


def _check_told(scheduler: Any) -> None:
    """Refuse a flow's timesteps that tell the denoiser another noise level than the scheduler computes with."""
    scale = scheduler.config.num_train_timesteps
    for call, timestep in enumerate(scheduler.timesteps.tolist()):
        _, noise = level(scheduler, call)
        # Some classes round timesteps to whole numbers.
        if abs(timestep - scale * noise) > 1 + _ROUNDING * scale:
            raise PolicyError(
                f"{type(scheduler).__name__} shifts a flow's noise levels but not explicit timesteps, and would tell"
                f" the denoiser {timestep:g} at a noise of {noise:.3f}: give sigmas, which are shifted"
            )


def _check_as_told(own: Any, scheduler: Any, mu: float | None) -> None:
    """Refuse noise levels that are not those at which the pipeline's own scheduler tells these timesteps."""
    trial = copy.copy(own)
    scale = trial.config.num_train_timesteps
    type(trial).set_timesteps(trial, mu=mu, **told(scheduler.timesteps.tolist(), scale))
    for call, timestep in enumerate(scheduler.timesteps.tolist()):
        (_, noise), (_, expected) = level(scheduler, call), level(trial, call)
        if abs(noise - expected) * scale > 1 + _ROUNDING * scale:
            raise PolicyError(
                f"{type(scheduler).__name__} would tell the denoiser {timestep:g} at a noise of {noise:.3f}, where the"
                f" model is told that at {expected:.3f}: leave its settings and spacing to the pipeline"
            )


_ROUNDING = 1e-5


@contextmanager
def _named(pipe: Any, policy: Policy) -> Iterator[None]:
    """Name solver and pipeline in what is refused of a solver."""
    try:
        yield
    except PolicyError as error:
        name, text = type(pipe).__name__, str(error)
        if policy.scheduler is None or (name in text and policy.scheduler.name in text):
            raise
        raise PolicyError(f"{name} cannot run under {policy.scheduler.name}: {text}") from None


@contextmanager
def refused_settings(name: str) -> Iterator[None]:
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
