"""The price of a policy: a sum over its plan."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple
from functools import cached_property
from typing import Any

from autotune.cost.flops import count_work
from autotune.cost.hardware_profile import Profile, ProfiledModel, ProfileError, load_profile
from autotune.cost.latency import LatencyModel
from autotune.cost.tables import cached_table
from autotune.cost.work import Cost, Work, WorkTable
from autotune.pipelines.families import LatentSize, family_of
from autotune.pipelines.units import find_units
from autotune.plan import Group, Pattern, Plan, compile_plan
from autotune.policy import Policy
from autotune.runtime.apply import plain_scheduler
from autotune.runtime.models import (
    check_fields,
    default_steps,
    fingerprint_of,
    latents_of,
    recommended,
    root_of,
    text_length,
)
from autotune.runtime.strength import STRENGTH, skipped_steps
from autotune.runtime.timesteps import count_calls


class Pricer:
    """Prices policies for one pipeline and one picture size; each latent size of a model is counted once.

    Args:
        pipe: the pipeline; only its configs and dtype are read.
        height, width: of the pictures, in pixels; the model's native size by default.
        frames: of videos; the pipeline's default by default.
        full_steps: steps of the full run that costs are relative to, unless a policy names its own.
        guided: whether calls use classifier-free guidance; None is what the pipeline does by default.
        text_tokens: tokens the denoiser gets for a prompt; by default the length that the pipeline pads to.
        target: a hardware profile, or its file, to predict milliseconds with.
        call: further arguments of the calls that bear on their cost (``strength``, ``use_resolution_binning``,
            ``max_sequence_length``) besides what the model recommends. Without a strength no step is left out.

    Raises:
        ProfileError: the profile is unreadable, or of another model, size or use of guidance.
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
        target: Profile | str | os.PathLike[str] | None = None,
        call: Mapping[str, Any] = {},
    ) -> None:
        self._pipe = pipe
        self._strength: float | None = call.get(STRENGTH)
        own = family_of(pipe)
        self._denoiser = root_of(own.denoiser(pipe))
        sized = {"height": height, "width": width, **call}
        self.text_tokens = text_length(pipe, sized) if text_tokens is None else text_tokens
        self.structure = find_units(self._denoiser)
        self._full = latents_of(pipe, height, width, frames, call)
        self.height, self.width, self.frames = self._full.height, self._full.width, self._full.frames
        self.full_steps = full_steps or default_steps(pipe)
        self.guided = own.guided if guided is None else guided
        called = {**recommended(pipe).call, **call}
        self._family = own.for_call(self.guided, called)
        self.branches = self._family.branch_count(self.guided, called)
        self.refuses = frozenset(self._family.refuses)
        self._itemsize = next(self._denoiser.parameters()).element_size()
        self._model = (
            type(self._family).__name__,
            type(self._denoiser).__name__,
            fingerprint_of(self._denoiser),
            self._family.adapters,
            self._family.variant,
        )
        self._tables: dict[tuple[int, int], WorkTable] = {}
        self._counted_calls: dict[Any, tuple[int, ...]] = {}
        native = self._family.native_size(pipe)
        self.subject = ProfiledModel(
            pipeline=type(pipe).__name__,
            denoiser=type(self._denoiser).__name__,
            denoiser_fingerprint=fingerprint_of(self._denoiser),
            height=height or native[0],
            width=width or native[1],
            frames=self.frames,
            text_tokens=self.text_tokens,
            guided=self.guided,
        )
        self.target = load_profile(target) if isinstance(target, str | os.PathLike) else target
        if self.target is not None:
            self.target.check_subject(self.subject)
        self._latencies: dict[int, LatencyModel] = {}
        self._works: dict[tuple[Pattern, int, int], Work] = {}

    def on(self, target: Profile) -> Pricer:
        """The same pricer with a hardware profile.

        Raises:
            ProfileError: the profile is of another model, size or use of guidance.
        """
        target.check_subject(self.subject)
        pricer = copy.copy(self)
        pricer.target, pricer._latencies = target, {}
        return pricer

    def plan(self, policy: Policy, *, skipped_calls: int | None = None) -> Plan:
        """The policy made explicit for this pipeline and size; see :func:`autotune.plan.compile_plan`."""
        skipped = self.skipped_calls(policy) if skipped_calls is None else skipped_calls
        return self._plan(policy, skipped, self.branches)

    def skipped_calls(self, policy: Policy) -> int:
        """Denoiser calls at the beginning that image-to-image leaves out at this strength."""
        return sum(self._calls(policy)[: skipped_steps(self._pipe, policy.steps, self._strength)])

    def _plan(self, policy: Policy, skipped_calls: int, branches: int) -> Plan:
        check_fields(self._pipe, policy)
        return compile_plan(
            policy,
            self.structure,
            self.height,
            self.width,
            guided=branches > 1,
            branches=max(branches, 2),
            calls=self._calls(policy),
            start=skipped_calls,
        )

    def price(self, policy: Policy, batch_size: int = 1, *, skipped_calls: int | None = None) -> Cost:
        """Price ``policy`` for ``batch_size`` pictures.

        Args:
            skipped_calls: denoiser calls at the beginning that image-to-image leaves out, where that is not to follow
                from the strength.

        Raises:
            PolicyError: the policy does not fit the pipeline at this size.
            ProfileError: the profile has no times for this batch size, or for latents of the policy.
        """
        skipped = self.skipped_calls(policy) if skipped_calls is None else skipped_calls
        plan = self.plan(policy, skipped_calls=skipped)
        total = sum(
            (self._work(pattern, height, width) * rows for (pattern, height, width), rows in _rows(plan).items()),
            Work(0, 0),
        )
        full_steps = policy.model.full_steps if policy.model else self.full_steps
        return Cost(
            flops=total.flops * batch_size,
            macs_conv_linear=total.macs_conv_linear * batch_size,
            relative=total.flops / self.full_flops(full_steps),
            latency_ms=None if self.target is None else self.latency(batch_size).predict(plan),
            cache_bytes=max(self._cache_bytes(plan), self._first_bytes(plan, policy, skipped)) * batch_size,
            latent_bytes=self._latent_bytes(plan) * batch_size,
        )

    def first_calls_flops(self, policy: Policy, calls: int) -> int:
        """FLOPs for one picture of the first ``calls`` calls of the denoiser, which a run may share with another."""
        steps = self.plan(policy).steps[:calls]
        return sum(self._work(step.pattern, step.height, step.width).flops * step.branches for step in steps)

    def full_cost(self, batch_size: int = 1) -> Cost:
        """What the full run costs."""
        return self.price(Policy(steps=self.full_steps), batch_size)

    def latency(self, batch_size: int = 1) -> LatencyModel:
        """Predicts calls for ``batch_size`` pictures on the target.

        Raises:
            ProfileError: there is no target, or it has no times for this batch size.
        """
        if self.target is None:
            raise ProfileError("milliseconds are predicted with a hardware profile: give a target")
        if batch_size not in self._latencies:
            separate = self._family.branches == "separate"
            self._latencies[batch_size] = LatencyModel(
                self.structure, self.target.of_batch(batch_size), separate=separate
            )
        return self._latencies[batch_size]

    def full_flops(self, steps: int | None = None) -> int:
        """FLOPs of the full run for one picture."""
        full = Policy(steps=steps or self.full_steps)
        calls = sum(self._calls(full)) - self.skipped_calls(full)
        return calls * self.table(self.height, self.width).total.flops * self.branches

    def table(self, height: int, width: int) -> WorkTable:
        """Work of every unit in one denoiser call for one sample with latents of ``height`` x ``width``."""
        if (height, width) not in self._tables:
            size = LatentSize(height, width, self.frames)
            self._tables[height, width] = cached_table(
                lambda: count_work(
                    self._denoiser,
                    self.structure,
                    lambda config: self._family.inputs(config, size, self.text_tokens),
                    self._family.prepare,
                ),
                self.structure,
                *self._model,
                astuple(size),
                self.text_tokens,
            )
        return self._tables[height, width]

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
            self._works[key] = self.table(height, width).of(pattern.computed)
        return self._works[key]

    def _cache_bytes(self, plan: Plan) -> int:
        kept: dict[tuple[Group, int], int] = {}
        held = peak = 0
        for position, step in enumerate(plan.steps):
            for group in step.kept:
                size = self._elements(group, step.height, step.width) * step.branches * self._itemsize
                kept[group, step.index] = size
                held += size
            peak = max(peak, held + self._difference_bytes(plan, position))
            for output in step.dropped:
                held -= kept.pop(output)
        return peak

    def _difference_bytes(self, plan: Plan, position: int) -> int:
        """Of the difference of guidance's branches as a call ends."""
        if not plan.holds_difference(position):
            return 0
        step = plan.steps[position]
        return self.table(step.height, step.width).output * self._itemsize

    def _first_bytes(self, plan: Plan, policy: Policy, skipped_calls: int) -> int:
        """Kept after the first step where a pipeline calls its denoiser once a branch.

        Whether there is a second branch only shows then: until guidance begins, what a call without any would
        take later is kept as well.
        """
        if self._family.branches != "separate" or policy.guidance is None or policy.guidance.start_step == 0:
            return 0
        first = plan.steps[0]
        kept = first.keep | self._plan(policy, skipped_calls, 1).steps[0].keep
        return self._elements(tuple(kept), first.height, first.width) * first.branches * self._itemsize

    def _latent_bytes(self, plan: Plan) -> int:
        """Below full size: the noise of the call at full size, and the real latents."""
        full = self.height * self.width
        below = [step.height * step.width for step in plan.steps if step.height * step.width < full]
        if not below:
            return 0
        elements = self._latent_elements
        rows = self._family.latent_rows if self.guided else 1
        return (elements + elements * max(below) // full * rows) * self._itemsize

    @cached_property
    def _latent_elements(self) -> int:
        return self._family.latent_elements(self._denoiser.config, self._full, self.text_tokens)

    def _elements(self, group: Group, height: int, width: int) -> int:
        elements = self.table(height, width).elements
        return sum(elements[unit] for unit in group)


def _rows(plan: Plan) -> Counter[tuple[Pattern, int, int]]:
    """How many samples are computed in every way."""
    rows: Counter[tuple[Pattern, int, int]] = Counter()
    for step in plan.steps:
        rows[step.pattern, step.height, step.width] += step.branches
    return rows
