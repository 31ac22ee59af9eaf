"""The time of a pipeline call, predicted: the plan's calls of the denoiser priced by a hardware profile."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from itertools import chain

from autotune.cost.hardware_profile import BatchTimes, CallTimes, Corrections, ProfileError
from autotune.plan import DenoiserCall, Pattern, Plan
from autotune.plan.structure import Structure


@dataclass(frozen=True)
class Parts:
    """What a pipeline call consists of besides text encoder and decoder; the corrections are factors of these.

    Attributes:
        calls: of the pipeline: 1.
        steps: of the scheduler.
        denoiser_ms: all calls of the denoiser, as the profile has them.
        hooks: units that some step skips, summed over the calls of the denoiser.
        handoffs: changes of resolution.
    """

    calls: float
    steps: float
    denoiser_ms: float
    hooks: float
    handoffs: float

    def milliseconds(self, corrections: Corrections) -> float:
        parts: tuple[float, ...] = astuple(self)
        return sum(part * factor for part, factor in zip(parts, factors(corrections), strict=True))


def factors(corrections: Corrections) -> tuple[float, ...]:
    """The correction that goes with every field of :class:`Parts`."""
    fitted = corrections
    return fitted.call_ms, fitted.step_ms, fitted.denoiser, fitted.hook_ms, fitted.handoff_ms


class LatencyModel:
    """Predicts pipeline calls with as many pictures as ``times`` were taken with.

    Args:
        structure: of the denoiser the times are of.
        separate: whether the pipeline calls its denoiser once for every guidance branch.

    Raises:
        ProfileError: the times are of other units.
    """

    def __init__(self, structure: Structure, times: BatchTimes, *, separate: bool) -> None:
        first = times.calls[0]
        if (len(first.units_ms), len(first.blocks_ms)) != (len(structure.units), len(structure.blocks)):
            raise ProfileError(
                f"the profile has times of {len(first.units_ms)} units and {len(first.blocks_ms)} blocks, the denoiser"
                f" has {len(structure.units)} and {len(structure.blocks)}: profile it again with this release"
            )
        self.times = times
        self._separate = separate
        self._by_size = {(call.height, call.width, call.branches): call for call in times.calls}
        self._blocks = [frozenset(block.units) for block in structure.blocks]
        self._units = len(structure.units)
        self._known: dict[tuple[Pattern, int, int, int], float] = {}

    def predict(self, plan: Plan) -> float:
        """Milliseconds of a pipeline call under ``plan``, text encoder and decoder included.

        Raises:
            ProfileError: the profile has no times for one of the plan's latent sizes.
        """
        around = self.times.text_encoder_ms + self.times.decoder_ms
        return around + self.parts(plan).milliseconds(self.times.corrections)

    def parts(self, plan: Plan) -> Parts:
        """What a call under ``plan`` consists of, by the profile's times as they were taken."""
        calls = sum(step.branches if self._separate else 1 for step in plan.steps)
        return Parts(
            calls=1,
            steps=len(plan.steps),
            denoiser_ms=sum(map(self._uncorrected, plan.steps)),
            hooks=calls * self._skipped_somewhere(plan),
            handoffs=sum(step.handoff is not None for step in plan.steps),
        )

    def call_ms(self, step: DenoiserCall) -> float:
        """Milliseconds that the denoiser takes in one step of a plan."""
        return self._uncorrected(step) * self.times.corrections.denoiser

    def _uncorrected(self, step: DenoiserCall) -> float:
        count, branches = (step.branches, 1) if self._separate else (1, step.branches)
        key = (step.pattern, step.height, step.width, branches)
        if key not in self._known:
            self._known[key] = self._sum(step.pattern, self._of_size(*key[1:]))
        return count * self._known[key]

    def _sum(self, pattern: Pattern, times: CallTimes) -> float:
        units = sum(times.units_ms[unit] for unit in pattern.computed)
        computed = set(pattern.computed)
        blocks = sum(ms for ms, inside in zip(times.blocks_ms, self._blocks, strict=True) if computed & inside)
        return times.always_ms + units + blocks

    def _skipped_somewhere(self, plan: Plan) -> int:
        patterns = {step.pattern for step in plan.steps}
        return self._units - len(set.intersection(*(set(pattern.computed) for pattern in patterns)))

    def _of_size(self, height: int, width: int, branches: int) -> CallTimes:
        found = self._by_size.get((height, width, branches))
        if found is None:
            raise ProfileError(
                f"the profile has no times for latents of {height}x{width} with {branches} guidance"
                f" branch{'es' if branches > 1 else ''}; it has {_listed(self._by_size)}: use one of these sizes,"
                " or profile again with --scales"
            )
        return found


def _listed(sizes: Iterable[tuple[int, int, int]]) -> str:
    found = [f"{height}x{width}" for height, width in sorted({(height, width) for height, width, _ in sizes})]
    return ", ".join(found if len(found) <= 8 else chain(found[:4], ["..."], found[-3:]))
