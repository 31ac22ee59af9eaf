"""What a search may vary, per family of denoisers: a few ordinal knobs, and the policies they stand for.

Example:
    >>> space = space_for(autotune.demo_pipeline(), steps=12)
    >>> [knob.name for knob in space.knobs if knob.name.startswith("interval")]
    ['interval']
    >>> space.sample(seed=0).steps
    12
    >>> space.from_trial(optuna.create_study().ask()).steps
    12
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.files import read_ranges
from search_spaces.moves import moved
from search_spaces.space import Knob, Recipe, SearchSpace
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
    call: Mapping[str, Any] | None = None,
) -> SearchSpace:
    """The search space of ``pipe``'s family, for pictures of ``height`` x ``width`` pixels.

    U-Nets have one of their own; everything else that the runtime serves is a transformer.

    Args:
        pipe: A diffusers pipeline.
        height: Pixels; None is the model's native height.
        width: Pixels; None is the model's native width.
        steps: Steps that :meth:`SearchSpace.sample` gives its policies; None is the pipeline's own default.
        guided: Whether pictures are made with classifier-free guidance; without, there is none to stop early.
        call: Other arguments of the pipeline's calls that bear on their size (``use_resolution_binning``); what the
            model recommends by default.

    Raises:
        InputError: the runtime does not serve its denoiser.
    """
    from autotune.runtime import denoiser_of

    space: type[UNetSpace] | type[TransformerSpace] = TransformerSpace
    if type(denoiser_of(pipe)).__name__ in _UNETS:
        space = UNetSpace
    return space.for_pipeline(pipe, height=height, width=width, steps=steps, guided=guided, call=call)


__all__ = ["Knob", "Recipe", "SearchSpace", "TransformerSpace", "UNetSpace", "moved", "read_ranges", "space_for"]
