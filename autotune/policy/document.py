"""The policy as data: its fields, and what must hold between them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from autotune.core.records import Record, Text, shown
from autotune.policy.fields import MAX_STEPS, Sigma, Timesteps
from autotune.policy.records import ModelInfo, PolicyCost, PolicyQuality, Provenance
from autotune.policy.techniques import CacheRule, Guidance, ResolutionStage, SchedulerChoice

FORMAT: Literal["postdiff-policy"] = "postdiff-policy"
VERSIONS = (1, 2, 3, 4)
"""A file says the lowest that has what it says."""

RESIDUAL_ORDER = 2
"""The first in which mode ``residual`` may have an order."""

WEIGHTS = 3
"""The first in which cache rules may have weights."""

GUIDANCE_RATE = 3
"""The first in which guidance may compute its unconditional branch in some of its steps only."""

GUIDANCE_FACTOR = 4
"""The first in which guidance may add more or less than it would."""


class PolicyDocument(Record):
    """The fields of a policy file, versions 1 to 4; :class:`autotune.Policy` is one with what can be done with it.

    ``timesteps`` names a spacing of the scheduler ("default" is its own) or lists one timestep
    per step; ``sigmas`` lists noise levels instead. ``scheduler`` replaces the pipeline's solver.
    """

    format: Literal["postdiff-policy"] = FORMAT
    version: Literal[1, 2, 3, 4] = 1
    model: ModelInfo | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    scheduler: SchedulerChoice | None = None
    timesteps: Timesteps = "default"
    sigmas: Annotated[tuple[Sigma, ...], Field(strict=False, max_length=MAX_STEPS)] | None = None
    resolution: Annotated[tuple[ResolutionStage, ...], Field(strict=False, max_length=8)] = ()
    guidance: Guidance | None = None
    cache: Annotated[tuple[CacheRule, ...], Field(strict=False, max_length=64)] = ()
    budget: Text | None = None
    cost: PolicyCost | None = None
    quality: PolicyQuality | None = None
    provenance: Provenance | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_schedule()
        self._check_resolution()
        self._check_guidance()
        if self.version < lowest_version(self.quality):
            raise ValueError(
                "quality: without an alignment or a scorer, with fewer_steps_policy or with an error, it is of version"
                " 2, and so it is with a certificate; say so in version"
            )
        for index, rule in enumerate(self.cache):
            if rule.mode == "residual" and rule.order is not None and self.version < RESIDUAL_ORDER:
                raise ValueError(
                    f"cache.{index}.order: mode 'residual' has one from version {RESIDUAL_ORDER} on, say so in version"
                )
            if rule.compute_steps[-1] >= self.steps:
                raise ValueError(
                    f"cache.{index}.compute_steps: step {rule.compute_steps[-1]} does not exist,"
                    f" the last of {self.steps} steps is {self.steps - 1}"
                )
            if rule.weights is not None:
                self._check_weights(f"cache.{index}", rule)
        return self

    def _check_schedule(self) -> None:
        if not isinstance(self.timesteps, str):
            _check_decreasing("timesteps", self.timesteps, self.steps)
        if self.sigmas is not None:
            if self.timesteps != "default":
                raise ValueError(
                    f"sigmas: given together with timesteps {shown(self.timesteps)}, either alone fixes the noise"
                    " levels: leave one out"
                )
            _check_decreasing("sigmas", self.sigmas, self.steps)

    def _check_resolution(self) -> None:
        scale, until = 0.0, 0
        for stage in self.resolution:
            if stage.until_step <= until or stage.until_step >= self.steps:
                raise ValueError(
                    f"resolution: until_step {stage.until_step} must lie after {until} and before the last step,"
                    f" at most {self.steps - 1}"
                )
            if stage.scale <= scale:
                raise ValueError(f"resolution: scales must grow, {stage.scale:g} follows {scale:g}")
            scale, until = stage.scale, stage.until_step

    def _check_weights(self, place: str, rule: CacheRule) -> None:
        """Weights are those of results that will be there, whatever forces units to compute in between."""
        assert rule.weights is not None
        if self.version < WEIGHTS:
            raise ValueError(f"{place}.weights: a rule has them from version {WEIGHTS} on, say so in version")
        if self.guidance is not None and self.guidance.compute_steps is not None:
            raise ValueError(
                f"{place}.weights: they go with guidance that computes both branches in all of its steps; leave"
                " guidance.compute_steps out, or take an order"
            )
        forced = {stage.until_step for stage in self.resolution}
        if self.guidance is not None:
            forced.add(self.guidance.start_step)
        unsaid = sorted(forced.difference(rule.compute_steps))
        if unsaid:
            raise ValueError(
                f"{place}.compute_steps: with weights they list step {unsaid[0]} too, in which all units compute"
                " because resolution or guidance changes"
            )
        skipped = rule.skipped_steps(self.steps)
        if len(rule.weights) != len(skipped):
            raise ValueError(
                f"{place}.weights: {len(rule.weights)} lists for {len(skipped)} steps that are not in compute_steps,"
                " give one for each"
            )
        for step, weights in zip(skipped, rule.weights, strict=True):
            since = max((each for each in forced if each <= step), default=0)
            there = bisect_left(rule.compute_steps, step) - bisect_left(rule.compute_steps, since)
            if len(weights) > there:
                raise ValueError(
                    f"{place}.weights: {len(weights)} for step {step}, before which the units have computed"
                    f" {there} result{'s' * (there != 1)}{f' since step {since}' * (since > 0)}: give at most as many"
                )

    def _check_guidance(self) -> None:
        if self.guidance is None:
            return
        start, stop = self.guidance.start_step, self.guidance.stop_step
        if not start < stop <= self.steps:
            raise ValueError(f"guidance: [{start}, {stop}) is not an interval within the {self.steps} steps")
        if self.guidance.after != "nothing" and stop == self.steps:
            raise ValueError(
                f"guidance.after is {self.guidance.after!r}: no step follows stop_step {stop}, use 'nothing', or a"
                f" stop_step of at most {self.steps - 1}"
            )
        if self.guidance.compute_steps is not None and self.version < GUIDANCE_RATE:
            raise ValueError(
                f"guidance.compute_steps: guidance has them from version {GUIDANCE_RATE} on, say so in version"
            )
        if self.guidance.factor is not None and self.version < GUIDANCE_FACTOR:
            raise ValueError(f"guidance.factor: guidance has one from version {GUIDANCE_FACTOR} on, say so in version")


def lowest_version(
    quality: PolicyQuality | None, cache: Sequence[CacheRule] = (), guidance: Guidance | None = None
) -> Literal[1, 2, 3, 4]:
    """The version of the format that has what the records, the cache rules and guidance say."""
    if guidance is not None and guidance.factor is not None:
        return 4
    if any(rule.weights is not None for rule in cache) or (guidance is not None and guidance.compute_steps is not None):
        return 3
    if any(rule.mode == "residual" and rule.order is not None for rule in cache):
        return 2
    if quality is None:
        return 1
    scores = (quality.policy, quality.full, quality.fewer_steps)
    later = any(each.alignment is None or each.error is not None for each in scores)
    later = later or quality.fewer_steps_policy is not None or quality.certificate is not None
    return 2 if later or quality.scorer is None else 1


def _check_decreasing(key: str, values: tuple[int, ...] | tuple[float, ...], steps: int) -> None:
    if len(values) != steps:
        raise ValueError(f"{key}: {len(values)} values for {steps} steps, give one per step")
    for index, (before, value) in enumerate(pairwise(values), start=1):
        if value >= before:
            raise ValueError(f"{key}.{index} is {value:.6g}: must be below the {before:.6g} before it")
