"""A pipeline's steps under a policy without its denoiser: do its calls of the scheduler work, at this size?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autotune.core.errors import InputError, PolicyError
from autotune.pipelines.card import FILE
from autotune.pipelines.families import Family, family_of, scheduler_calls
from autotune.pipelines.units import find_units
from autotune.plan import compile_plan
from autotune.policy import Policy
from autotune.runtime.apply import check_unapplied
from autotune.runtime.compatibility import fitted, step_arguments
from autotune.runtime.models import check_compatible, latents_of, recommended
from autotune.runtime.schedulers import scales_noise
from autotune.runtime.timesteps import refused_settings, solver_under, try_steps

# Latents that stand in for the real ones: a scheduler computes every value of them alike.
_SIDE, _CHANNELS = 2, 4


def check_runs(
    pipe: Any,
    policy: Policy,
    height: int | None = None,
    width: int | None = None,
    *,
    call: Mapping[str, Any] = {},
    strict: bool = True,
) -> None:
    """Find out whether a pipeline runs under a policy, in a moment: neither denoiser nor weights are touched.

    A copy of the policy's scheduler gets what the pipeline passes to ``set_timesteps`` at this size and, once a step,
    to ``step``, with small latents of noise. The pipeline must not run under a policy yet, and is left as it is.

    Args:
        pipe: A diffusers pipeline; its weights may be anywhere, or on the ``meta`` device.
        policy: What it is to run under.
        height: Pixels; the model's native size by default.
        width: Pixels.
        call: Arguments of the calls to come besides those that the model recommends.
        strict: See :func:`autotune.apply_policy`.

    Raises:
        PolicyError: the policy, or its solver, does not fit the pipeline at this size.
        InputError: the pipeline is not supported, or makes pictures of another size.

    Example:
        >>> check_runs(autotune.demo_pipeline(), autotune.Policy(steps=8))
    """
    check_unapplied(pipe)
    family = family_of(pipe)
    check_compatible(pipe, policy, strict=strict)
    structure = find_units(family.denoiser(pipe))
    _check_bins(pipe, family, {**recommended(pipe).call, **call})
    scheduler, calls = solver_under(policy, pipe, pipe.scheduler)
    size = latents_of(pipe, height, width, call=call)
    compile_plan(policy, structure, size.height, size.width, calls=calls)
    trial, _ = try_steps(scheduler, policy, pipe, size)
    with refused_settings(type(trial).__name__):
        end = _steps(pipe, trial)
    if not torch.isfinite(end).all():
        raise PolicyError(
            f"{type(pipe).__name__} cannot run under {type(trial).__name__} here: its steps end in values that are not"
            " finite; use other timesteps or sigmas, or other scheduler settings"
        )


def _check_bins(pipe: Any, family: Family, call: Mapping[str, Any]) -> None:
    """Refuse calls that would make pictures of a size that neither the caller nor the model has in mind."""
    bins = family.call_signature(pipe).bins_sizes and call.get("use_resolution_binning", True)
    if bins and not family.bins_are_native(pipe):
        raise InputError(
            f"{type(pipe).__name__} would make pictures of the nearest size in its list, which holds none of this"
            f" model's: pass use_resolution_binning=False, or write it under call in the model's {FILE}"
        )


def _steps(pipe: Any, scheduler: Any) -> Tensor:
    """All steps of a scheduler whose timesteps are set, called as the pipeline calls it."""
    calls, generator = scheduler_calls(pipe), torch.Generator().manual_seed(0)
    values: dict[str, Any] = {"eta": 0.0, "generator": generator, "use_clipped_model_output": None}
    passed = {name: values[name] for name in step_arguments(pipe, scheduler)}
    if calls is not None and calls.sets_begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    sample = torch.randn(1, _CHANNELS, _SIDE, _SIDE, generator=generator)
    for timestep in scheduler.timesteps:
        output = torch.randn(sample.shape, generator=generator)
        if scales_noise(scheduler):
            scheduler.scale_model_input(sample, timestep)
        arguments = fitted(pipe, scheduler, passed)
        sample = type(scheduler).step(scheduler, output, timestep, sample, **arguments, return_dict=False)[0]
    return sample
