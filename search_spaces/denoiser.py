"""What the spaces of all denoisers have in common: solvers, and when stages and guidance begin and end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

from autotune.plan.structure import Structure
from autotune.policy import Policy, ResolutionStage
from search_spaces.knobs import Knob
from search_spaces.levers import Lever
from search_spaces.schedule import at
from search_spaces.solvers import MOST_SKEW, OWN, Solver
from search_spaces.space import SearchSpace

LOW_RESOLUTION = Lever("low_resolution", ("scale", "switch", "handoff"), essential=("scale", "switch"))
GUIDANCE = (
    Lever("guidance_interval", ("guidance_start", "guidance_stop")),
    Lever("gating", ("gate",), essential=("gate",), part_of="guidance_interval"),
)
NOISE = (Lever("other_solver", ("solver",), essential=("solver",)), Lever("other_noise_levels", ("skew",)))


# Of more scales than this only those nearest to eighths are taken: the others look alike, and each has to be timed.
_MOST_SCALES = 8


def taken_scales(scales: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """For each of the scales, which grow from a quarter to 1, the one that is taken for it: itself, or of many
    the one nearest to an eighth.

    Example:
        >>> sides = [Fraction(side, 48) for side in range(12, 49)]
        >>> sorted({str(scale) for scale in taken_scales(sides)})
        ['1', '1/2', '1/4', '3/4', '3/8', '5/8', '7/8']
    """
    if len(scales) <= _MOST_SCALES:
        return tuple(scales)
    eighths = [Fraction(part, 8) for part in range(2, 9)]
    coarse = [min(scales, key=lambda scale: abs(scale - eighth)) for eighth in eighths]
    return tuple(min(coarse, key=lambda scale: (abs(scale - each), -scale)) for each in scales)


class DenoiserSpace(SearchSpace):
    """Knobs for one denoiser at one size.

    Attributes:
        scales: Side lengths of the latents as shares of full size, growing; the last is 1. Of many, those that are
            next to each other mean the same, see :func:`taken_scales`.
        solvers: The pipeline's own first.
    """

    scales: tuple[Fraction, ...]
    solvers: tuple[Solver, ...]
    of_steps = ("solver", "skew")

    @abstractmethod
    def __init__(
        self,
        structure: Structure,
        height: int,
        width: int,
        default_steps: int,
        *,
        guided: bool = True,
        resized: bool = True,
        solvers: Sequence[Solver] = (OWN,),
    ) -> None: ...

    def taken(self, index: int) -> Fraction:
        """The scale that a value of the knob ``scale`` means."""
        return self._taken[index]

    @cached_property
    def _taken(self) -> tuple[Fraction, ...]:
        return taken_scales(self.scales)

    @property
    def asked_scales(self) -> tuple[Fraction, ...]:
        """All scales that policies of this space may have, growing; the last is 1."""
        (knob,) = (knob for knob in self.knobs if knob.name == "scale")
        return tuple(sorted({self.taken(index) for index in range(knob.low, knob.high + 1)} | {Fraction(1)}))

    def noise_levels(self, values: Mapping[str, int], steps: int) -> Mapping[str, Any]:
        """What a policy says of solver and noise levels."""
        return self.solvers[values["solver"]].fields(values["skew"], steps)

    def explicit_noise_levels(self, policy: Policy) -> Policy:
        # Where the knob of noise levels is fixed, they are the solver's own to stay.
        free = any(knob.name == "skew" and knob.low < knob.high for knob in self.knobs)
        if not free or policy.timesteps != "default" or policy.sigmas is not None:
            return policy
        solver = next((solver for solver in self.solvers if solver.choice == policy.scheduler), None)
        listed = {} if solver is None else solver.listed(policy.steps)
        return Policy(**{**dict(policy), **listed})

    @staticmethod
    def noise_knobs(solvers: Sequence[Solver]) -> tuple[Knob, ...]:
        """The knobs that :meth:`noise_levels` reads; each has a single value where there is no choice."""
        skew = MOST_SKEW if any(solver.skews for solver in solvers) else 0
        names = ", ".join(f"{index} {solver.name}" for index, solver in enumerate(solvers))
        return (
            Knob("solver", 0, len(solvers) - 1, f"which solver takes the steps: {names}"),
            Knob("skew", -skew, skew, f"noise levels to the power of 2 ** (skew / {MOST_SKEW}); above 0 more are low"),
        )

    def solver_recipes(self) -> dict[str, dict[str, int]]:
        """Fewer steps by each other solver."""
        others = list(enumerate(self.solvers))[1:]
        return {f"fewer steps, {solver.name}": {"solver": index} for index, solver in others}

    def stages(self, values: Mapping[str, int], switch: int) -> tuple[ResolutionStage, ...]:
        """The stage of low resolution, if any, that ends before step ``switch``."""
        if not switch:
            return ()
        handoff: Literal["renoise", "noise_matched"] = "noise_matched" if values["handoff"] else "renoise"
        scale = float(self.taken(values["scale"]))
        return (ResolutionStage(scale=scale, until_step=switch, handoff=handoff),)

    def times(self, values: Mapping[str, int], steps: int) -> tuple[int, int, int]:
        """First step at full size (0: all are), first with guidance, first after it."""
        switch = min(at(values["switch"], steps), steps - 1) if self.taken(values["scale"]) < 1 else 0
        stop = max(at(values["guidance_stop"], steps), 1)
        return switch, min(at(values["guidance_start"], steps), stop - 1), stop
