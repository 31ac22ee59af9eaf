"""Another scheduler in the place of a pipeline's own: for the same denoiser, along the same noise schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import diffusers

from autotune.core.errors import PolicyError, did_you_mean
from autotune.pipelines.families.scheduling import SHIFT_KEYS
from autotune.runtime.noise_levels import FLOW
from autotune.runtime.schedulers import (
    SOLVERS,
    check_scheduler,
    is_flow,
    kind_of,
    parameters,
    prediction_type,
    reason_of,
    setting,
    shifts_dynamically,
)

_SPACINGS = ("leading", "linspace", "trailing")
_SIGMA_KEYS = {name: f"use_{name}_sigmas" for name in ("karras", "exponential", "beta")}
# Settings that shape the noise schedule itself, with the value that leaves it alone: a solver that lacks one would
# denoise along another schedule.
_SCHEDULE_KEYS: Mapping[str, Any] = {
    "rescale_betas_zero_snr": False,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "timestep_type": "discrete",
    "sigma_min": None,
    "sigma_max": None,
}
# Keys that say which noise levels a denoiser was trained at, which no policy changes.
TRAINING_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")


def make_scheduler(current: Any, name: str, config: Mapping[str, Any]) -> Any:
    """Another scheduler class for the same denoiser: ``current``'s config with ``config`` on top.

    A flow solver keeps the shift of ``current``, whatever its class calls it.

    Raises:
        InputError: ``current`` is not supported.
        PolicyError: the class or a key is unknown, or the class cannot follow the denoiser's noise schedule.
    """
    check_scheduler(current)
    if name not in SOLVERS:
        raise PolicyError(f"the scheduler {name!r} is not supported{did_you_mean(name, SOLVERS)}")
    cls = getattr(diffusers, name)
    known = parameters(cls).keys()
    for key in config:
        if key not in known:
            raise PolicyError(f"{name} has no setting {key!r}{did_you_mean(key, known)}")
    for key, neutral in _SCHEDULE_KEYS.items():
        if setting(current, key, neutral) not in (neutral, None) and key not in known:
            raise PolicyError(f"{name} cannot follow this model's noise schedule: it has no setting {key!r}")
    kind = FLOW if is_flow(current) else "epsilon"
    if kind not in SOLVERS[name].predictions:
        solves, needs = ("diffusion", "flow") if is_flow(current) else ("flow", "diffusion")
        raise PolicyError(f"{name} solves {solves} models, this model's {type(current).__name__} is for {needs}")
    # Spelled out, because a config's defaults give way to those of the class; a class that never clips has no setting.
    shared = known & parameters(type(current)).keys()
    inherited = {key: setting(current, key) for key in TRAINING_KEYS if key in shared}
    if "clip_sample" in known:
        inherited["clip_sample"] = bool(setting(current, "clip_sample", current.config.get("clip_sample")))
    if is_flow(current):
        shift = setting(current, "shift", setting(current, "flow_shift", 1.0))
        flow = {"use_flow_sigmas": True, "prediction_type": FLOW, "flow_shift": shift, "shift": shift}
        inherited |= {key: value for key, value in flow.items() if key in known}
    made = _construct(cls, current, inherited | dict(config))
    _check_shift(current, made)
    if prediction_type(made) != prediction_type(current):
        raise PolicyError(
            f"{name} is set to prediction_type {prediction_type(made)!r}, this model predicts"
            f" {prediction_type(current)!r}: leave prediction_type out"
        )
    return made


def with_spacing(scheduler: Any, name: str) -> Any:
    """The same scheduler with timesteps spaced otherwise.

    Args:
        name: ``leading``, ``linspace`` or ``trailing`` (timesteps), ``karras``, ``exponential`` or ``beta`` (sigmas).

    Raises:
        InputError: the scheduler is not supported.
        PolicyError: the name is unknown, or the scheduler has no such spacing.
    """
    check_scheduler(scheduler)
    if name not in _SPACINGS and name not in _SIGMA_KEYS:
        raise PolicyError(f"the spacing {name!r} is unknown{did_you_mean(name, (*_SPACINGS, *_SIGMA_KEYS))}")
    known = parameters(type(scheduler))
    has_timesteps, has_sigmas = "timestep_spacing" in known, [n for n, key in _SIGMA_KEYS.items() if key in known]
    # With flow sigmas these classes ignore timestep_spacing and take the others' sigmas in another unit.
    valid = [] if setting(scheduler, "use_flow_sigmas") else [*(_SPACINGS if has_timesteps else ()), *has_sigmas]
    if name not in valid:
        raise PolicyError(
            f"{type(scheduler).__name__} has no {name!r} spacing here; it has {', '.join(valid) or 'only its own'}"
        )
    # Sigmas take precedence over timesteps, and only one kind may be chosen.
    changes: dict[str, Any] = {_SIGMA_KEYS[n]: n == name for n in has_sigmas}
    if name in _SPACINGS:
        changes["timestep_spacing"] = name
    return _construct(type(scheduler), scheduler, changes)


def explicit(scheduler: Any, argument: Literal["timesteps", "sigmas"]) -> bool:
    """Whether ``set_timesteps`` takes an explicit list of ``timesteps`` or ``sigmas``."""
    if argument == "sigmas" and setting(scheduler, "use_flow_sigmas", True) is False:
        return False  # UniPC names the argument but takes it for flows only
    if any(setting(scheduler, key) for key in _SIGMA_KEYS.values()):
        return False  # refused, or replaced by the scheduler's own sigmas
    # Of the class: the instance's method may have been replaced.
    return argument in inspect.signature(type(scheduler).set_timesteps).parameters


def _check_shift(current: Any, made: Any) -> None:
    """Refuse a flow's solver that would not shift its noise levels as the pipeline's own does."""
    name = type(made).__name__
    if not is_flow(made) or type(made) is type(current):
        return
    kind = setting(made, "time_shift_type", "exponential")
    if shifts_dynamically(made) and kind not in kind_of(made).time_shifts:
        raise PolicyError(f"{name} cannot follow this model's noise schedule: its time_shift_type is {kind!r}")
    spaced = next((key for key in _SIGMA_KEYS.values() if setting(made, key)), None)
    if spaced is not None and setting(made, "use_flow_sigmas"):
        raise PolicyError(f"{name} takes {spaced} for a diffusion's noise levels, not a flow's: set it to false")


def _construct(cls: Any, current: Any, changes: Mapping[str, Any]) -> Any:
    # Keys of other classes would only be warned of.
    known, own = parameters(cls).keys(), parameters(type(current))
    config = {key: value for key, value in current.config.items() if key in known}
    if cls is not type(current):
        # A value that is the default of the model's own class gives way to the new class's, whether a file spells it
        # out or not: both have one fingerprint, and a policy must mean the same on both.
        config = {key: value for key, value in config.items() if key not in own or own[key].default != value}
    try:
        made = cls.from_config(config, **changes)
        check_scheduler(made)
        # Not the class's own, and read by pipelines: without them mu would be another.
        carried = SHIFT_KEYS.keys() & current.config.keys() - known
        made.register_to_config(**{key: current.config[key] for key in carried})
    # What diffusers raises for settings that exclude each other, or are not implemented.
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise PolicyError(f"{cls.__name__} refuses these settings: {reason_of(error)}") from None
    return made
