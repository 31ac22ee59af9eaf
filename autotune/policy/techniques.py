"""What a policy may ask of its steps besides their number: smaller latents, less guidance, reuse, another solver."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from autotune.core.records import GrownRecord, Record, shown
from autotune.policy.fields import (
    MAX_FACTOR,
    MAX_STEPS,
    ClassName,
    ConfigKey,
    ConfigValue,
    StepIndex,
    StepWeights,
    UnitName,
)


class ResolutionStage(Record):
    """Steps before ``until_step`` (and after the previous stage) run at ``scale`` per side.

    ``handoff="renoise"`` is PostDiff's (section 3.1): predict x0 from the last step of the
    stage, resize it bilinearly in latent space and add fresh noise for the next timestep.
    ``handoff="noise_matched"`` keeps the low-frequency content of the noisy latents, fills only
    the new high frequencies with the call's initial noise, at the next timestep's own noise
    level (after SPEED, arXiv 2605.18736).
    """

    scale: Annotated[float, Field(gt=0, lt=1)]
    until_step: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    handoff: Literal["renoise", "noise_matched"] = "renoise"


class Guidance(GrownRecord):
    """Classifier-free guidance runs for steps in ``[start_step, stop_step)`` only.

    Outside of it the conditional branch alone is computed, as if the guidance scale were 1.
    ``after="cross_attention"`` also lets the cross-attention units reuse, from ``stop_step`` on,
    their last output of the conditional branch ("Cond" in PostDiff, section 3.2).

    The unconditional branch is computed at ``compute_steps``, by default all of the interval. At the
    interval's other steps it is the conditional one minus the *difference of the branches* (conditional minus
    unconditional) when both were computed last, so that guidance adds that difference again
    (CFG-Cache of FasterCache, arXiv 2410.19355, without its weights of frequencies; LinearAG,
    arXiv 2312.12487, regresses the branch on earlier ones instead). This needs version 3. Steps
    that are all of the interval are the default, and are kept as None.

    Where guidance runs it adds ``factor`` times what it would: in pipelines where a scale of 1 adds nothing, a scale
    s counts as 1 + factor * (s - 1). Guidance in fewer steps takes a larger scale (Kynkäänniemi et al. 2024, arXiv
    2404.07724). This needs version 4. A factor of 1 is the default, and is kept as None.
    """

    later_keys: ClassVar[frozenset[str]] = frozenset({"compute_steps", "factor"})

    start_step: StepIndex = 0
    stop_step: StepIndex
    after: Literal["nothing", "cross_attention"] = "nothing"
    compute_steps: Annotated[tuple[StepIndex, ...], Field(strict=False, min_length=1, max_length=MAX_STEPS)] | None = (
        None
    )
    factor: Annotated[float, Field(gt=0, le=MAX_FACTOR, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _within(self) -> Guidance:
        if self.factor == 1:
            object.__setattr__(self, "factor", None)
        steps = self.compute_steps
        if steps is None:
            return self
        _check_increasing(steps)
        if steps[0] != self.start_step:
            raise ValueError(
                f"compute_steps must begin with start_step {self.start_step}, not with {steps[0]}:"
                " there is no difference of the branches to reuse before"
            )
        if steps[-1] >= self.stop_step:
            raise ValueError(
                f"compute_steps: step {steps[-1]} has no guidance, which runs in [{self.start_step}, {self.stop_step})"
            )
        if len(steps) == self.stop_step - self.start_step:
            object.__setattr__(self, "compute_steps", None)
        return self


class CacheRule(GrownRecord):
    """Units that compute at ``compute_steps`` and at every other step take what they computed before.

    A unit is a layer (``"up_blocks.1.resnets.0"``) or a whole block (``"up_blocks.1"``). An entry
    of ``units`` may also be a range of blocks (``"transformer_blocks.3-10"``, both ends included)
    or a pattern in which ``*`` stands for one path component and ``**`` for any number
    (``"**.attn2"``). What then feeds nothing is not computed either; nobody needs to list it.

    ``mode="reuse"`` takes the last computed output as it is. ``mode="residual"`` takes the last
    computed output minus its input, added to the present input (Delta-DiT, arXiv 2406.01125); with
    an ``order``, that difference is extrapolated as in the next mode. This needs version 2.
    ``mode="forecast"`` extrapolates the last ``order + 1`` computed outputs to the present step
    by the polynomial through them, as TaylorSeer does with finite differences (Liu et al. 2025,
    section 3.2); while there are fewer, those.

    Instead of an ``order`` these two modes may have ``weights`` (version 3): for every step that is not in
    ``compute_steps``, in order, one to three weights of the last computed results, the newest first. The step takes
    their weighted sum. They need not sum to 1; least squares on full runs find them (L2P, arXiv 2604.26365;
    :func:`autotune.fit_forecasts`). Where a solver calls the denoiser several times a step, every call weighs the
    results of the same calls of those steps. A call of the pipeline that begins after one of them (``strength``) has no
    result of it: there the polynomial through as many of the last results as there are weights takes their place.
    """

    later_keys: ClassVar[frozenset[str]] = frozenset({"weights"})

    units: Annotated[tuple[UnitName, ...], Field(strict=False, min_length=1, max_length=64)]
    mode: Literal["reuse", "residual", "forecast"] = "reuse"
    order: Annotated[int, Field(ge=1, le=2)] | None = None
    compute_steps: Annotated[tuple[StepIndex, ...], Field(strict=False, min_length=1, max_length=MAX_STEPS)]
    weights: Annotated[tuple[StepWeights, ...], Field(strict=False, max_length=MAX_STEPS)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> CacheRule:
        _check_increasing(self.compute_steps)
        if self.compute_steps[0] != 0:
            raise ValueError(
                f"compute_steps must begin with 0, not with {self.compute_steps[0]}:"
                " there is nothing to reuse at the first step"
            )
        if self.weights is not None:
            self._check_weights_go_with_mode()
            return self
        wrong = {"reuse": self.order is not None, "residual": False, "forecast": self.order is None}
        if wrong[self.mode]:
            raise ValueError(
                f"order {shown(self.order)} does not go with mode {self.mode!r}: order is 1 or 2 in mode 'forecast',"
                " null in mode 'reuse', and either in mode 'residual'"
            )
        return self

    def _check_weights_go_with_mode(self) -> None:
        if self.mode == "reuse":
            raise ValueError(
                "weights do not go with mode 'reuse', which takes the last result as it is: use mode 'forecast'"
                " or 'residual'"
            )
        if self.order is not None:
            raise ValueError(f"order {self.order} and weights both say how results are extrapolated: leave one out")

    def skipped_steps(self, steps: int) -> tuple[int, ...]:
        """Those of a policy's ``steps`` in which the units do not compute, which ``weights`` are for."""
        return tuple(sorted(set(range(steps)).difference(self.compute_steps)))


class SchedulerChoice(Record):
    """Another solver to run under, by class name, of the same prediction type as the pipeline's own.

    ``config`` holds what is set besides the pipeline's own scheduler config.
    """

    name: ClassName
    config: Annotated[dict[ConfigKey, ConfigValue], Field(max_length=32)] = {}


def _check_increasing(steps: Sequence[int]) -> None:
    for before, step in pairwise(steps):
        if step <= before:
            raise ValueError(f"compute_steps must be increasing, each step once: {step} follows {before}")
