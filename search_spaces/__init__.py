"""What a search may vary, per family of denoisers: a few ordinal knobs, and the policies they stand for.

Example:
    >>> space = space_for(pipe)  # doctest: +SKIP
    >>> space.sample(seed=0).id  # doctest: +SKIP
    's20-r0.50@9-up_blocks.1i3-g14'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autotune.errors import InputError
from search_spaces.space import Knob, Recipe, SearchSpace
from search_spaces.unet import UNetSpace

_SPACES: dict[str, Callable[..., SearchSpace]] = {"UNet2DConditionModel": UNetSpace.for_pipeline}


def space_for(
    pipe: Any, *, height: int | None = None, width: int | None = None, steps: int | None = None, guided: bool = True
) -> SearchSpace:
    """The search space of ``pipe``'s family, for pictures of ``height`` x ``width`` pixels.

    Args:
        pipe: A diffusers pipeline.
        height: Pixels; None is the model's native height.
        width: Pixels; None is the model's native width.
        steps: Steps that :meth:`SearchSpace.sample` gives its policies; None is the pipeline's own default.
        guided: Whether pictures are made with classifier-free guidance; without, there is none to stop early.

    Raises:
        InputError: no space is declared for its denoiser.
    """
    from autotune.runtime import denoiser_of

    name = type(denoiser_of(pipe)).__name__
    if name not in _SPACES:
        raise InputError(f"no search space is declared for {name}; declared: {', '.join(sorted(_SPACES))}")
    return _SPACES[name](pipe, height=height, width=width, steps=steps, guided=guided)


__all__ = ["Knob", "Recipe", "SearchSpace", "UNetSpace", "space_for"]
