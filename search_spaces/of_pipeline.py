"""The search space of a pipeline: the one module here that looks at models; the spaces themselves need none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.pipelines.units import find_units
from autotune.runtime.models import default_steps, denoiser_of, latents_of
from search_spaces.solvers import solvers_for
from search_spaces.space import SearchSpace
from search_spaces.transformer import TransformerSpace
from search_spaces.unet import UNetSpace

_UNETS = {"UNet2DConditionModel", "UNet2DModel"}


def space_for(
    pipe: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    guided: bool = True,
    call: Mapping[str, Any] = {},
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

    Raises:
        InputError: the runtime does not serve its denoiser.
    """
    denoiser = denoiser_of(pipe)
    space: type[UNetSpace] | type[TransformerSpace] = TransformerSpace
    if type(denoiser).__name__ in _UNETS:
        space = UNetSpace
    latents, steps = latents_of(pipe, height, width, call=call), steps or default_steps(pipe)
    return space(
        find_units(denoiser),
        latents.height,
        latents.width,
        steps,
        guided=guided,
        solvers=solvers_for(pipe, steps),
    )
