"""What a profile is measured of: a pipeline at one size of pictures, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import torch

from autotune.core.naming import CompileMode
from autotune.cost.example import example_call
from autotune.cost.pricing import Pricer
from autotune.cost.profile.calibration import calibration_policies
from autotune.cost.profile.timers import Clock
from autotune.pipelines.families import family_of
from autotune.runtime.models import root_of

Call = Callable[[int], Mapping[str, Any]]
"""Arguments of a call of the pipeline for so many pictures."""


class Subject:
    """What is measured, and how.

    Args:
        pipe: the pipeline.
        pricer: of the size of pictures and the use of guidance that are measured.
        frames: of videos; None is the pipeline's default.
        scales: of a side of the latents, each of which the denoiser accepts.
        compile_mode: how the denoiser is compiled for single and whole calls.
        rounds: how often every call of the denoiser is timed.
        call: arguments of a call for so many pictures; None is :func:`autotune.cost.example.example_call`.
    """

    def __init__(
        self,
        pipe: Any,
        pricer: Pricer,
        frames: int | None,
        scales: tuple[Fraction, ...],
        compile_mode: CompileMode,
        rounds: int,
        call: Call | None,
    ) -> None:
        family = family_of(pipe)
        self.pipe = pipe
        self.pricer = pricer
        self.scales = scales
        self.compile_mode = compile_mode
        self.rounds = rounds
        self.denoiser = root_of(family.denoiser(pipe))
        self.device = next(self.denoiser.parameters()).device
        self.clock = Clock(self.device)
        self.separate = family.branches == "separate"
        # Guidance branches that one call of the denoiser may compute.
        stops = pricer.branches > 1 and "guidance" not in pricer.refuses
        most = 1 if self.separate else pricer.branches
        self.branch_counts = (most, 1) if stops and not self.separate else (most,)
        self.calibrations = calibration_policies(pricer.structure, scales, stops)
        self._call = call
        self._frames = frames
        self._unguided = family.guided and not pricer.guided

    def arguments(self, batch: int) -> dict[str, Any]:
        """Of a call of the pipeline for ``batch`` pictures."""
        given = self._example(batch) if self._call is None else self._sized(self._call(batch))
        return given | {"generator": torch.Generator().manual_seed(0)}

    def _example(self, batch: int) -> dict[str, Any]:
        subject = self.pricer.subject
        given = example_call(self.pipe, batch, height=subject.height, width=subject.width, guided=self.pricer.guided)
        return given if self._frames is None else given | {"num_frames": self._frames}

    def _sized(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A caller's own arguments, at the size that is profiled."""
        parameters = inspect.signature(type(self.pipe).__call__).parameters
        subject = self.pricer.subject
        size = {"height": subject.height, "width": subject.width, "num_frames": self._frames}
        fitting: dict[str, Any] = {
            name: value for name, value in size.items() if name in parameters and value is not None
        }
        if self._unguided and "guidance_scale" in parameters:
            fitting["guidance_scale"] = 1.0
        return {**given, **fitting}
