"""The denoiser's arguments as the pipeline makes them, kept so that single calls can be timed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from torch import nn

from autotune.cost.hardware_profile import CallTimes, rounded
from autotune.cost.profile.subject import Subject
from autotune.policy import Guidance, Policy, ResolutionStage
from autotune.runtime import applied

# A stage of low resolution needs a step after it; some solvers want more than two.
_CAPTURE_STEPS = 4


@dataclass
class CapturedCall:
    """The denoiser's arguments as the pipeline makes them at one latent size, and the times of calls with them.

    ``shares``: of every timed call the part of its time that is each own time: of no unit, of each unit, each block.
    """

    height: int
    width: int
    branches: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    forward_ms: list[float] = field(default_factory=list)
    shares: list[list[float]] = field(default_factory=list)

    def through(self, denoiser: nn.Module) -> Callable[[], Any]:
        return lambda: denoiser(*self.args, **self.kwargs)

    def times(self, units: int) -> CallTimes:
        forward = statistics.median(self.forward_ms)
        # What is left after subtraction can be less than nothing where clocks are coarse.
        shares = np.maximum(np.median(np.array(self.shares), axis=0), 0)
        own = [rounded(ms) for ms in forward * shares / shares.sum()]
        return CallTimes(
            height=self.height,
            width=self.width,
            branches=self.branches,
            forward_ms=rounded(forward),
            always_ms=own[0],
            units_ms=tuple(own[1 : 1 + units]),
            blocks_ms=tuple(own[1 + units :]),
        )


def capture(subject: Subject, batch: int, scale: Fraction, branches: int) -> CapturedCall:
    """See the first call of the denoiser under a policy that makes it the wanted one, and end the pipeline's call."""
    policy = Policy(
        steps=_CAPTURE_STEPS,
        resolution=() if scale == 1 else (ResolutionStage(scale=float(scale), until_step=1),),
        guidance=Guidance(start_step=1, stop_step=_CAPTURE_STEPS) if branches < subject.branch_counts[0] else None,
    )
    seen: list[tuple[Any, Any]] = []

    def see(module: nn.Module, args: Any, kwargs: Any) -> None:
        seen.append((args, kwargs))
        raise _Seen

    with applied(subject.pipe, policy):
        handle = subject.denoiser.register_forward_pre_hook(see, with_kwargs=True)
        try:
            subject.pipe(**subject.arguments(batch))
        except _Seen:
            pass  # What was wanted.
        finally:
            handle.remove()
    ((args, kwargs),) = seen
    height, width = (int(side * scale) for side in (subject.pricer.height, subject.pricer.width))
    return CapturedCall(height, width, branches, args, kwargs)


class _Seen(Exception):
    """Ends a pipeline call of which only the first call of the denoiser is wanted."""
