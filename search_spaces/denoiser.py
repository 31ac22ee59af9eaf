"""What the spaces of all denoisers have in common: solvers, and when stages and guidance begin and end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

from autotune.plan.structure import Structure
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, lowest_version
from search_spaces.earlier import PLAIN_OF_LATER
from search_spaces.knobs import Knob
from search_spaces.levers import Lever
from search_spaces.schedule import MOST_COOL_DOWN, PARTS, Schedule, at
from search_spaces.solvers import MOST_SKEW, OWN, Solver
from search_spaces.space import SearchSpace

LOW_RESOLUTION = (
    Lever("low_resolution", ("scale", "switch", "handoff"), essential=("scale", "switch")),
    Lever("middle_resolution", ("middle",), essential=("middle",), part_of="low_resolution"),
)
SECOND_WINDOW = Lever(
    "second_window", ("late_interval", "late_start"), essential=("late_interval",), part_of="reuse", modifies=True
)
GUIDANCE = (
    Lever("guidance_interval", ("guidance_start", "guidance_stop")),
    Lever("gating", ("gate",), essential=("gate",), part_of="guidance_interval"),
)
STRENGTH = Lever("guidance_strength", ("guidance_factor",), essential=("guidance_factor",), part_of="guidance_interval")
REPAIR_GUIDANCE: tuple[tuple[str, Literal[-1, 1]], ...] = ("guidance_start", -1), ("gate", -1), ("guidance_stop", 1)
REPAIR_SIZES: tuple[tuple[str, Literal[-1, 1]], ...] = ("middle", -1), ("switch", -1), ("scale", 1)
"""How a policy that is too cheap gets dearer, at first and at last; see :attr:`SearchSpace.repair_order`."""

# Of MOST_SKEW notches: among five steps of both shipped models the best one.
_LOW_NOISE = 3

NOISE = (Lever("other_solver", ("solver",), essential=("solver",)), Lever("other_noise_levels", ("skew",)))

MAX_INTERVAL = 6
LONGEST = 50
"""What intervals, warm-up and cool-down may be widened to."""

# What guidance is multiplied by, in quarters.
_QUARTERS = 4
# Steps by which guidance begins and ends later.
_INTERVAL_MOVES = (0, 1), (-1, 0), (1, 1), (-1, -1), (1, 0), (0, -1)

_MAX_WARM_UP = 5
_LATEST_START = PARTS // 2
_MOST_MIDDLE = PARTS // 2
# Earlier, the first window would be little more than a warm-up; later, the second little more than a cool-down.
_LATE_START = 8, 16

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


def _a_step_on(part: int, direction: int, steps: int, low: int, high: int) -> int | None:
    """The nearest part of the steps in a direction, 0 stays, that means another step; None where the range ends."""
    parts = range(part, high + 1) if direction > 0 else range(part, low - 1, -1)
    return next((each for each in parts if at(each, steps) != at(part, steps) or not direction), None)


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
    of_guidance = ("guidance_start", "guidance_stop", "guidance_factor")

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

    def policy(self, values: Mapping[str, int], steps: int) -> Policy:
        self.check(values)
        switches, start, stop = self.times(values, steps)
        gated = bool(values["gate"]) and stop < steps
        after: Literal["nothing", "cross_attention"] = "cross_attention" if gated else "nothing"
        guidance = None
        if start or stop < steps:
            factor = values["guidance_factor"] / _QUARTERS
            guidance = Guidance(start_step=start, stop_step=stop, after=after, factor=factor)
        cache = self.cache_rules(values, self.schedule(values, steps), gated=gated)
        return Policy(
            version=lowest_version(None, cache, guidance),
            steps=steps,
            **self.noise_levels(values, steps),
            resolution=self.stages(values, switches),
            guidance=guidance,
            cache=cache,
        )

    @abstractmethod
    def cache_rules(self, values: Mapping[str, int], schedule: Schedule, *, gated: bool) -> tuple[CacheRule, ...]:
        """What is reused or forecast, in canonical form.

        Args:
            values: Of all knobs.
            schedule: When it computes, besides the intervals.
            gated: Whether cross-attention stays what it was once guidance has ended.
        """

    def taken(self, index: int) -> Fraction:
        """The scale that a value of the knob ``scale`` means."""
        return self._taken[index]

    @cached_property
    def _taken(self) -> tuple[Fraction, ...]:
        return taken_scales(self.scales)

    def middle(self, index: int) -> Fraction | None:
        """The scale halfway from the one that a value of the knob ``scale`` means to full size; None where there is
        none between them.
        """
        return self._middle[index]

    @cached_property
    def _middle(self) -> tuple[Fraction | None, ...]:
        offered = sorted(set(self._taken))

        def halfway(first: Fraction) -> Fraction | None:
            between = [scale for scale in offered if first < scale < 1]
            return min(between, key=lambda scale: abs(scale - (first + 1) / 2)) if between else None

        return tuple(map(halfway, self._taken))

    @property
    def asked_scales(self) -> tuple[Fraction, ...]:
        """All scales that policies of this space may have, growing; the last is 1."""
        ranges = {knob.name: range(knob.low, knob.high + 1) for knob in self.knobs}
        found = {self.taken(index) for index in ranges["scale"]} | {Fraction(1)}
        if any(ranges["middle"]):
            found |= {middle for index in ranges["scale"] if (middle := self.middle(index)) is not None}
        return tuple(sorted(found))

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

    def plain_values(self, **reuse: int) -> dict[str, int]:
        """Values of all knobs that pull no lever, given those of the knobs for reuse that the denoiser alone has."""
        values = {"scale": len(self.scales) - 1, "switch": 0, "handoff": 0, "warm_up": 0, **reuse}
        values |= {"guidance_start": 0, "guidance_stop": PARTS, "gate": 0, "solver": 0, "skew": 0}
        return values | {knob.name: PLAIN_OF_LATER[knob.name] for knob in self.knobs if knob.name in PLAIN_OF_LATER}

    def solver_recipes(self) -> dict[str, dict[str, int]]:
        """Fewer steps by each other solver, and with more of them at low noise by the first that takes a list."""
        others = list(enumerate(self.solvers))[1:]
        found = {f"fewer steps, {solver.name}": {"solver": index} for index, solver in others}
        index = next((index for index, solver in enumerate(self.solvers) if solver.skews), None)
        if index is not None:
            by = f", {self.solvers[index].name}" if index else ""
            # Details form last, and evenly spaced steps leave them few (Karras et al. 2022, appendix D).
            found[f"fewer steps{by}, more at low noise"] = {"solver": index, "skew": _LOW_NOISE}
        return found

    @staticmethod
    def guidance_recipes() -> dict[str, dict[str, int]]:
        """Guidance in fewer steps, where the other branch decides most.

        Guidance hurts at high noise and does nothing at low noise (Kynkäänniemi et al. 2024).
        """
        return {
            name: {"guidance_start": start, "guidance_stop": stop}
            for name, start, stop in (
                ("guidance cut", 0, PARTS // 2),
                ("guidance in the middle", PARTS // 5, 3 * PARTS // 4),
                ("guidance in the middle alone", 3 * PARTS // 10, 7 * PARTS // 10),
                ("guidance in the later half", 3 * PARTS // 10, 4 * PARTS // 5),
            )
        }

    def other_intervals(self, values: Mapping[str, int], steps: int) -> Iterator[dict[str, int]]:
        bounds = {knob.name: (knob.low, knob.high) for knob in self.knobs}
        ends = ("guidance_start", "guidance_stop")
        for by in _INTERVAL_MOVES:
            start, stop = (
                _a_step_on(values[name], direction, steps, *bounds[name])
                for name, direction in zip(ends, by, strict=True)
            )
            if start is not None and stop is not None and at(start, steps) < at(stop, steps):
                yield {**values, "guidance_start": start, "guidance_stop": stop}

    def stronger(self, values: Mapping[str, int], steps: int) -> Iterator[dict[str, int]]:
        (knob,) = (knob for knob in self.knobs if knob.name == "guidance_factor")
        factor = values[knob.name] + 1
        # Guidance in all steps is the pipeline's own.
        if (at(values["guidance_start"], steps) or at(values["guidance_stop"], steps) < steps) and factor <= knob.high:
            yield {**values, knob.name: factor}

    def size_knobs(self) -> tuple[Knob, ...]:
        """The knobs that say at which sizes the first steps are taken; each has a single value where there is one."""
        full = len(self.scales) - 1
        middle = _MOST_MIDDLE if any(self._middle) else 0
        return (
            Knob("scale", 0, full, "side length of the first steps, an index into the scales; the last is full size"),
            Knob("switch", 0, PARTS - 1, "steps at that scale, in twentieths of all steps"),
            Knob("handoff", 0, 1, "what follows them: 0 fresh noise, 1 the noise there is"),
            Knob(
                "middle",
                0,
                middle,
                "steps halfway between that scale and full size, which follow, in twentieths of all steps",
                most=PARTS - 1 if middle else 0,
            ),
        )

    @staticmethod
    def guidance_knobs(guided: bool, gate: bool) -> tuple[Knob, ...]:
        """The knobs that say when guidance runs; each has a single value where there is no choice.

        Args:
            guided: Whether pictures are made with classifier-free guidance.
            gate: Whether cross-attention may stay what it was once guidance has ended.
        """
        return (
            Knob(
                "guidance_start",
                0,
                _LATEST_START if guided else 0,
                "twentieths of the steps before guidance begins",
                most=PARTS - 1 if guided else 0,
            ),
            Knob("guidance_stop", 1 if guided else PARTS, PARTS, "twentieths of the steps after which guidance ends"),
            Knob(
                "guidance_factor",
                _QUARTERS,
                2 * _QUARTERS if guided else _QUARTERS,
                "what guidance in some of the steps adds is multiplied by, in quarters",
                least=1 if guided else _QUARTERS,
                most=4 * _QUARTERS if guided else _QUARTERS,
            ),
            Knob("gate", 0, 1 if gate else 0, "whether cross-attention stays what it was once guidance has ended"),
        )

    @staticmethod
    def schedule_knobs() -> tuple[Knob, ...]:
        """The knobs that say when all that is reused is computed, besides the intervals."""
        return (
            Knob("warm_up", 0, _MAX_WARM_UP, "steps computed in full before the intervals begin", most=LONGEST),
            Knob("cool_down", 0, MOST_COOL_DOWN, "steps at the end that are computed in full", most=LONGEST),
            Knob(
                "late_interval",
                0,
                MAX_INTERVAL,
                "every how many steps all that is reused is computed later on; 0 as before",
                most=LONGEST,
            ),
            Knob("late_start", *_LATE_START, "twentieths of the steps after which it is", least=0, most=PARTS),
        )

    def stages(self, values: Mapping[str, int], switches: Sequence[int]) -> tuple[ResolutionStage, ...]:
        """The stages of low resolution, if any, that end before the steps ``switches``."""
        handoff: Literal["renoise", "noise_matched"] = "noise_matched" if values["handoff"] else "renoise"
        scales = self.taken(values["scale"]), self.middle(values["scale"])
        return tuple(
            ResolutionStage(scale=float(scale), until_step=switch, handoff=handoff)
            for scale, switch in zip(scales, switches, strict=False)
            if scale is not None
        )

    def times(self, values: Mapping[str, int], steps: int) -> tuple[tuple[int, ...], int, int]:
        """First steps at another size, none where all are at full size; first with guidance, first after it."""
        stop = max(at(values["guidance_stop"], steps), 1)
        return self._switches(values, steps), min(at(values["guidance_start"], steps), stop - 1), stop

    def _switches(self, values: Mapping[str, int], steps: int) -> tuple[int, ...]:
        scale, ends = values["scale"], [values["switch"], values["switch"] + values["middle"]]
        first, second = (min(at(end, steps), steps - 1) for end in ends)
        if not first or self.taken(scale) == 1:
            return ()
        return (first,) if second == first or self.middle(scale) is None else (first, second)

    def schedule(self, values: Mapping[str, int], steps: int) -> Schedule:
        """When all that is reused computes, besides the intervals."""
        switches, start, _ = self.times(values, steps)
        return Schedule(
            steps,
            warm_up=values["warm_up"],
            cool_down=values["cool_down"],
            switches=switches,
            start=start,
            late_interval=values["late_interval"],
            late_start=at(values["late_start"], steps),
        )
