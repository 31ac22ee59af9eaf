"""All that belongs to one call of a pipeline under a policy, in one object; every call begins with a new one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from autotune.pipelines.families import LatentSize
from autotune.plan import Plan
from autotune.runtime.branches import Difference
from autotune.runtime.lowres import LowResolution, Noised
from autotune.runtime.prefix.checkpoints import Checkpoint
from autotune.runtime.prefix.sharing import SharedCall

Kept = dict[tuple[int, int, int], tuple[int, Any]]
"""Results by (branch, unit, call), with the rows they were computed for."""


@dataclass(frozen=True)
class Part:
    """A part of the trajectory, in shares of it: SDXL's base model ends where its refiner starts.

    Attributes:
        start: ``denoising_start``; then latents that others have begun to denoise are given.
        end: ``denoising_end``.
    """

    start: Any = None
    end: Any = None

    def calls(self, scheduler: Any, start: int) -> int:
        """How many of the scheduler's timesteps from ``start`` on the pipeline takes."""
        timesteps = scheduler.timesteps[start:]
        if not self.ends:
            return len(timesteps)
        trained = scheduler.config.num_train_timesteps
        return int((timesteps >= round(trained - self.end * trained)).sum())

    @property
    def ends(self) -> bool:
        """Whether the pipeline heeds ``end``."""
        return isinstance(self.end, float) and 0 < self.end < 1


@dataclass(eq=False)
class Prepared:
    """What pipelines prepare before they denoise, some of them before they set timesteps and some after.

    Attributes:
        batch: pictures, one a row of latents; None where no method of the pipeline prepares these.
        generator: what the pipeline draws from, where it says so.
        noised: what noise was added to, of image-to-image.
        mask: where inpainting paints.
        part: which part of the trajectory the caller asks for.
    """

    batch: int | None = None
    generator: Any = None
    noised: Noised | None = None
    mask: Tensor | None = None
    part: Part = field(default_factory=Part)


@dataclass(eq=False)
class SinceStep:
    """What has happened since the scheduler's last step.

    Attributes:
        branches: calls of the denoiser.
        first_output: of the first of them, where the second's is made from it, or the difference of both.
        raw: latents as they were before the scheduler scaled them for the denoiser; None where nobody asked it to.
        timestep: that it scaled them for.
    """

    branches: int = 0
    first_output: Any = None
    raw: Any = None
    timestep: Any = None


@dataclass(eq=False)
class CallState:
    """Where one call of the pipeline stands. One that denoises twice gets another for the second time.

    Attributes:
        prepared: what was prepared.
        shared: what the call has in common with earlier ones; None of a call that shares nothing.
        calls: calls of the denoiser in each step, once timesteps are set.
        start: how many calls image-to-image leaves out.
        setting: what decides the scheduler's steps, for sharing.
        plan: from the first call of the denoiser on.
        unguided: the plan without guidance, while it is not known whether the denoiser is called once a step or twice.
        full: the size that the pipeline works at.
        low: the latents while they are smaller than that.
        pictures: how many are made.
        stacked: guidance branches in one batch, in the first call of the denoiser; callbacks may change that.
        twice: whether the denoiser is called for both branches.
        position: calls of the denoiser that are done.
        kept: results for later calls.
        difference: of guidance's branches, where the next call is to reuse it.
        since_step: what is forgotten after every step.
        sharing: whether the call goes on from earlier ones and leaves states for later ones.
        resuming: the state that it goes on from, until that is reached.
        skipped: calls that were not made on the way there.
    """

    prepared: Prepared = field(default_factory=Prepared)
    shared: SharedCall | None = None
    calls: tuple[int, ...] | None = None
    start: int = 0
    setting: str | None = None
    plan: Plan | None = None
    unguided: Plan | None = None
    full: LatentSize | None = None
    low: LowResolution | None = None
    pictures: int = 1
    stacked: int = 1
    twice: bool = False
    position: int = 0
    kept: Kept = field(default_factory=dict)
    difference: Difference | None = None
    since_step: SinceStep = field(default_factory=SinceStep)
    sharing: bool = False
    resuming: Checkpoint | None = None
    skipped: int = 0
