"""The price of a policy: a sum over its plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from autotune.cost.flops import Work, WorkTable, count_work
from autotune.families import LatentSize, family_of
from autotune.plan import Group, Pattern, Plan, compile_plan
from autotune.policy import Policy
from autotune.runtime.apply import plain_scheduler
from autotune.runtime.models import default_steps, fingerprint_of, latents_of, root_of, text_length
from autotune.runtime.timesteps import count_calls
from autotune.units import find_units


@dataclass(frozen=True)
class Cost:
    """What a policy costs.

    Attributes:
        flops: of the denoising loop, two per multiply-add, for the whole batch.
        macs_conv_linear: multiply-adds of convolutions and linear layers only, the papers' convention.
        relative: ``flops`` as a fraction of the full run's.
        latency_ms: pipeline time on the target, None without a hardware profile.
        cache_bytes: most memory that kept features take at any step, for the whole batch.
    """

    flops: int
    macs_conv_linear: int
    relative: float
    latency_ms: float | None
    cache_bytes: int


# Counting takes a second, and the same few models and sizes come up again and again.
_COUNTED: dict[Any, WorkTable] = {}


class Pricer:
    """Prices policies for one pipeline and one picture size; each latent size of a model is counted once.

    Args:
        pipe: the pipeline; only its configs and dtype are read.
        height, width: of the pictures, in pixels; the model's native size by default.
        frames: of videos; the pipeline's default by default.
        full_steps: steps of the full run that costs are relative to, unless a policy names its own.
        guided: whether calls use classifier-free guidance; None is what the pipeline does by default.
        text_tokens: tokens the denoiser gets for a prompt; by default the length that the pipeline pads to.
    """

    def __init__(
        self,
        pipe: Any,
        height: int | None = None,
        width: int | None = None,
        *,
        frames: int | None = None,
        full_steps: int | None = None,
        guided: bool | None = None,
        text_tokens: int | None = None,
    ) -> None:
        self._pipe = pipe
        self._family = family_of(pipe)
        self._denoiser = root_of(self._family.denoiser(pipe))
        self._text_tokens = text_length(pipe) if text_tokens is None else text_tokens
        self.structure = find_units(self._denoiser)
        self._full = latents_of(pipe, height, width, frames)
        self.height, self.width = self._full.height, self._full.width
        self.full_steps = full_steps or default_steps(pipe)
        self._guided = self._family.guided if guided is None else guided
        self._itemsize = next(self._denoiser.parameters()).element_size()
        self._model = (type(self._family), type(self._denoiser), fingerprint_of(self._denoiser))
        self._counted_calls: dict[Any, tuple[int, ...]] = {}
        self._works: dict[tuple[Pattern, int, int], Work] = {}

    def plan(self, policy: Policy, *, skipped_calls: int = 0) -> Plan:
        """The policy made explicit for this pipeline and size; see :func:`autotune.plan.compile_plan`."""
        return compile_plan(
            policy,
            self.structure,
            self.height,
            self.width,
            guided=self._guided,
            calls=self._calls(policy),
            start=skipped_calls,
        )

    def price(self, policy: Policy, batch_size: int = 1, *, skipped_calls: int = 0) -> Cost:
        """Price ``policy`` for ``batch_size`` pictures.

        Args:
            skipped_calls: denoiser calls at the beginning that image-to-image leaves out (strength below 1).

        Raises:
            PolicyError: the policy does not fit the pipeline at this size.
        """
        plan = self.plan(policy, skipped_calls=skipped_calls)
        total = sum(
            (self._work(pattern, height, width) * rows for (pattern, height, width), rows in _rows(plan).items()),
            Work(0, 0),
        )
        full_steps = policy.model.full_steps if policy.model else self.full_steps
        return Cost(
            flops=total.flops * batch_size,
            macs_conv_linear=total.macs_conv_linear * batch_size,
            relative=total.flops / self.full_flops(full_steps),
            latency_ms=None,
            cache_bytes=self._cache_bytes(plan) * batch_size,
        )

    def full_flops(self, steps: int | None = None) -> int:
        """FLOPs of the full run for one picture."""
        calls = sum(self._calls(Policy(steps=steps or self.full_steps)))
        return calls * self.table(self.height, self.width).total.flops * (2 if self._guided else 1)

    def table(self, height: int, width: int) -> WorkTable:
        """Work of every unit in one denoiser call for one sample with latents of ``height`` x ``width``."""
        size = LatentSize(height, width, self._full.frames)
        key = (*self._model, size, self._text_tokens)
        if key not in _COUNTED:
            _COUNTED[key] = count_work(
                self._denoiser, self.structure, lambda config: self._family.inputs(config, size, self._text_tokens)
            )
        return _COUNTED[key]

    def _calls(self, policy: Policy) -> tuple[int, ...]:
        """Denoiser calls in each step; trying a scheduler takes longer than all the rest of a price."""
        scheduler = plain_scheduler(self._pipe)
        choice = policy.scheduler.model_dump_json() if policy.scheduler else None
        key = (scheduler, choice, policy.steps, policy.timesteps, policy.sigmas)
        if key not in self._counted_calls:
            self._counted_calls[key] = count_calls(scheduler, policy, self._pipe)
        return self._counted_calls[key]

    def _work(self, pattern: Pattern, height: int, width: int) -> Work:
        """Work of one call for one sample."""
        key = (pattern, height, width)
        if key not in self._works:
            table = self.table(height, width)
            self._works[key] = sum((table.units[unit] for unit in pattern.computed), table.always)
        return self._works[key]

    def _cache_bytes(self, plan: Plan) -> int:
        kept: dict[tuple[Group, int], int] = {}
        held = peak = 0
        for step in plan.steps:
            for group in step.kept:
                size = self._elements(group, step.height, step.width) * step.branches * self._itemsize
                kept[group, step.index] = size
                held += size
            peak = max(peak, held)
            for output in step.dropped:
                held -= kept.pop(output)
        return peak

    def _elements(self, group: Group, height: int, width: int) -> int:
        elements = self.table(height, width).elements
        return sum(elements[unit] for unit in group)


def _rows(plan: Plan) -> Counter[tuple[Pattern, int, int]]:
    """How many samples are computed in every way."""
    rows: Counter[tuple[Pattern, int, int]] = Counter()
    for step in plan.steps:
        rows[step.pattern, step.height, step.width] += step.branches
    return rows


def price(
    pipe: Any,
    policy: Policy,
    *,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 1,
    target: str | None = None,
) -> Cost:
    """Price one policy; see :class:`Pricer` for pricing many.

    Args:
        target: a hardware profile to predict milliseconds with; not supported yet.

    Raises:
        PolicyError: the policy does not fit the pipeline.
        NotImplementedError: a target is given.

    Example:
        >>> autotune.price(pipe, policy).relative
        0.398
    """
    if target is not None:
        raise NotImplementedError("hardware profiles are not supported yet: leave target out")
    return Pricer(pipe, height, width).price(policy, batch_size)
