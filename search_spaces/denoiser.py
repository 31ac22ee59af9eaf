"""What the spaces of all denoisers have in common: how they are made, and when stages and guidance begin and end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Self

from autotune.structure import Structure
from search_spaces.schedule import at
from search_spaces.space import SearchSpace


class DenoiserSpace(SearchSpace):
    """Knobs for one denoiser at one size.

    Attributes:
        scales: Side lengths of the latents as shares of full size, growing; the last is 1.
    """

    scales: tuple[Fraction, ...]

    @abstractmethod
    def __init__(
        self, structure: Structure, height: int, width: int, default_steps: int, *, guided: bool = True
    ) -> None: ...

    @classmethod
    def for_pipeline(
        cls,
        pipe: Any,
        *,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guided: bool = True,
    ) -> Self:
        """The space of a pipeline around such a denoiser; see :func:`search_spaces.space_for`."""
        from autotune.runtime.models import default_steps, denoiser_of, latents_of
        from autotune.units import find_units

        latents = latents_of(pipe, height, width)
        return cls(
            find_units(denoiser_of(pipe)), latents.height, latents.width, steps or default_steps(pipe), guided=guided
        )

    def times(self, values: Mapping[str, int], steps: int) -> tuple[int, int, int]:
        """First step at full size (0: all are), first with guidance, first after it."""
        switch = min(at(values["switch"], steps), steps - 1) if self.scales[values["scale"]] < 1 else 0
        stop = max(at(values["guidance_stop"], steps), 1)
        return switch, min(at(values["guidance_start"], steps), stop - 1), stop
