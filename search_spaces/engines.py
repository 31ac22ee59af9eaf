"""Search spaces narrowed to what another engine can run, so that whatever is found can be exported to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from autotune.core.errors import InputError
from autotune.engines import cache_dit
from autotune.plan.structure import Structure
from search_spaces.space import SearchSpace

__all__ = ["NARROWED", "narrowed"]

Space = TypeVar("Space", bound=SearchSpace)
Ranges = Mapping[str, tuple[int, int]]

# What is left to vary: the range of blocks, and when these compute, which is a mask of steps there.
_CACHE_DIT = (
    *("first_block", "blocks", "block_interval"),
    *("warm_up", "cool_down", "late_interval", "late_start"),
)


def narrowed(space: Space, engine: str, structure: Structure, pipeline: str) -> Space:
    """The space without the levers that an engine has not.

    Args:
        space: Of a pipeline.
        engine: One of :data:`NARROWED`.
        structure: Of the pipeline's denoiser.
        pipeline: Name of the pipeline's class.

    Raises:
        InputError: The engine does not run the pipeline.
    """
    return space.within(NARROWED[engine](space, structure, pipeline))


def _of_cache_dit(space: SearchSpace, structure: Structure, pipeline: str) -> Ranges:
    try:
        exportable = cache_dit.exportable_blocks(structure, pipeline)
    except InputError as error:
        raise InputError(f"--space {cache_dit.NAME}: {error}") from None
    plain = space.recipes[0].values
    ranges = {knob.name: (plain[knob.name],) * 2 for knob in space.knobs if knob.name not in _CACHE_DIT}
    # Its first block computes in every step.
    return {**ranges, "first_block": (1, len(exportable) - 1)}


NARROWED: Mapping[str, Callable[[SearchSpace, Structure, str], Ranges]] = {cache_dit.NAME: _of_cache_dit}
"""Engines that a search may be narrowed to, by the name that ``--space`` takes."""
