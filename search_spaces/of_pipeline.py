"""The search space of a pipeline: the one module here that looks at models; the spaces themselves need none."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from autotune.core.errors import InputError
from autotune.pipelines.families import family_of
from autotune.pipelines.units import find_units
from autotune.policy import Policy, SchedulerChoice
from autotune.runtime.apply import plain_scheduler
from autotune.runtime.models import default_steps, denoiser_of, latents_of
from autotune.runtime.schedulers import is_flow
from autotune.runtime.timesteps import count_calls, scheduler_for
from search_spaces.engines import narrowed
from search_spaces.solvers import MOST_SKEW, Solver, Timesteps
from search_spaces.space import SearchSpace
from search_spaces.transformer import TransformerSpace
from search_spaces.unet import UNetSpace

# Of distilled models, whose few steps belong to the solver that they were distilled for.
_ALONE = {"LCMScheduler"}
# Second order at one call of the denoiser a step: Lu et al. 2022 (arXiv 2211.01095), Zhao et al. 2023 (2302.04867).
_CHOICES = (SchedulerChoice(name="DPMSolverMultistepScheduler"), SchedulerChoice(name="UniPCMultistepScheduler"))

_UNETS = {"UNet2DConditionModel", "UNet2DModel"}


def space_for(
    pipe: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    guided: bool = True,
    call: Mapping[str, Any] = {},
    engine: str | None = None,
) -> SearchSpace:
    """The search space of ``pipe``'s family, for pictures of ``height`` x ``width`` pixels.

    U-Nets have one of their own; everything else that the runtime serves is a transformer.

    Args:
        pipe: A diffusers pipeline.
        height: Pixels; None is the model's native height.
        width: Pixels; None is the model's native width.
        steps: Steps that :meth:`SearchSpace.sample` gives its policies; None is the pipeline's own default.
        guided: Whether pictures are made with classifier-free guidance; without, there is none to stop early.
        call: Arguments of the pipeline's calls that bear on their size (``use_resolution_binning``).
        engine: Narrow the space to what this engine can run, one of :data:`search_spaces.engines.NARROWED`.

    Raises:
        InputError: the runtime does not serve its denoiser, or ``engine`` does not run the pipeline.
    """
    denoiser = denoiser_of(pipe)
    space: type[UNetSpace] | type[TransformerSpace] = TransformerSpace
    if type(denoiser).__name__ in _UNETS:
        space = UNetSpace
    refuses = family_of(pipe).refuses
    latents, steps = latents_of(pipe, height, width, call=call), steps or default_steps(pipe)
    structure = find_units(denoiser)
    found = space(
        structure,
        latents.height,
        latents.width,
        steps,
        guided=guided and "guidance" not in refuses,
        resized="resolution" not in refuses,
        solvers=solvers_for(pipe, steps),
    )
    return found if engine is None else narrowed(found, engine, structure, type(pipe).__name__)


def solvers_for(pipe: Any, steps: int) -> tuple[Solver, ...]:
    """The solvers that a pipeline runs under, its own first: those that it can call the way it calls its own.

    Args:
        pipe: A diffusers pipeline; its weights are not needed.
        steps: A number of steps that each is tried with.
    """
    own = type(plain_scheduler(pipe)).__name__
    choices = () if own in _ALONE else tuple(choice for choice in _CHOICES if choice.name != own)
    found = (_solver(pipe, choice, steps) for choice in (None, *choices))
    return tuple(solver for solver in found if solver is not None)


def _solver(pipe: Any, choice: SchedulerChoice | None, steps: int) -> Solver | None:
    """The solver with all that it takes, or None where it does not run."""
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
        # Setting timesteps rebinds attributes of the copy.
        scheduler = copy.copy(scheduler_for(own, Policy(steps=steps, scheduler=choice)))
        type(scheduler).set_timesteps(scheduler, num_inference_steps=steps)
        return [round(float(timestep)) for timestep in scheduler.timesteps]

    return timesteps
