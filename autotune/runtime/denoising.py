"""What happens under a policy in place of a pipeline's calls of its denoiser and of its scheduler's ``step``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.pipelines.families import Family, LatentSize
from autotune.plan import DenoiserCall, compile_plan
from autotune.plan.structure import Structure
from autotune.policy import Policy
from autotune.runtime.branches import half, row_count, twice
from autotune.runtime.call import CallState, SinceStep
from autotune.runtime.compatibility import fitted
from autotune.runtime.hook_set import HookSet
from autotune.runtime.lowres import LowResolution
from autotune.runtime.models import check_no_other_cache, root_of
from autotune.runtime.prefix.checkpoints import Checkpoint
from autotune.runtime.session import Session
from autotune.runtime.snapshot import cloned, filled


class Denoising:
    """Executes the plan of the call in progress. Its own attributes are the same in every call.

    Args:
        pipe: the pipeline.
        family: what is known of its class.
        policy: what calls run under.
        structure: of the denoiser.
        scheduler: that the policy has the pipeline run under.
        unhooked: the scheduler's own methods by name.
        hooks: on the denoiser.
        attach: puts them back where they belong.
        session: the call in progress.
    """

    def __init__(
        self,
        pipe: Any,
        family: Family,
        policy: Policy,
        structure: Structure,
        scheduler: Any,
        unhooked: dict[str, Any],
        hooks: HookSet,
        attach: Callable[[], None],
        session: Session,
    ) -> None:
        self._pipe = pipe
        self._family = family
        self._policy = policy
        self._structure = structure
        self._scheduler = scheduler
        self._is_own = type(scheduler) is type(pipe.scheduler)
        self._unhooked = unhooked
        self._hooks = hooks
        self._attach = attach
        self._session = session
        self._separate = family.branches == "separate"

    def evaluate(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of the denoiser.

        Raises:
            InputError: the pipeline does in this call what no policy plans.
        """
        session = self._session
        if self._pipe.scheduler is not self._scheduler:
            session.end()
            raise InputError(
                f"the scheduler was replaced by a {type(self._pipe.scheduler).__name__} after apply_policy: call"
                " remove_policy(pipe), then apply a policy made for it"
            )
        call = session.call
        if call.plan is None and call.calls is None:
            return forward(*args, **kwargs)
        try:
            return self._evaluate(call, forward, args, kwargs)
        except BaseException:
            session.end()
            raise

    def step(
        self,
        original: Callable[..., Any],
        model_output: Any,
        timestep: Any,
        sample: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Advance the clock, and hand over to the next resolution where the plan says so."""
        session = self._session
        if not self._is_own:
            kwargs = self._fitted(kwargs)
        call, step = session.call, session.step
        if step is None or call.since_step.branches == 0:
            return original(model_output, timestep, sample, *args, **kwargs)
        if call.resuming is not None:
            return self._skip(call, call.resuming)
        if call.unguided is not None:
            # The first step shows whether there is guidance; what only the other plan takes later goes.
            call.twice = call.since_step.branches > 1
            assert call.plan is not None
            session.revise(call.plan if call.twice else call.unguided)
            call.unguided = None
        low = call.low
        placeholder = sample
        if low is not None:
            sample = low.sample_in_step(sample)
        result = original(model_output, timestep, sample, *args, **kwargs)
        if low is not None:
            own = call.prepared.generator
            low.generator = own if own is not None else kwargs.get("generator")
            following = result[0] if isinstance(result, tuple) else result.prev_sample
            latents = low.latents = following
            if step.handoff is not None:
                target = session.following
                size = LatentSize(target.height, target.width, low.size.frames)
                latents = low.hand_over(step.handoff, step.index, model_output, sample, following, size)
                if size == call.full:
                    call.low = None
            if call.low is not None:
                latents = low.placeholder(placeholder)
            result = _with_sample(result, latents)
        session.advance()
        # After the last step there is no plan, and nothing to go on from.
        if session.plan is not None and call.sharing and call.shared is not None:
            guided = call.stacked > 1 or call.twice
            call.shared.leave(session.plan, result, self._scheduler, session, call.low, guided=guided)
        return result

    def _evaluate(
        self, call: CallState, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = self._sample_name
        sample = args[0] if args else kwargs[name]
        if call.plan is None:
            self._begin(call, sample, kwargs)
        session, since_step = self._session, call.since_step
        step = session.step
        assert step is not None
        branch = since_step.branches
        since_step.branches += 1
        if branch == (2 if self._separate else 1):
            raise InputError(
                f"{type(self._pipe).__name__} evaluates its denoiser more than once a step in this call (an extra"
                " guidance technique?), which no policy plans: turn it off or call remove_policy(pipe)"
            )
        if call.resuming is not None:
            return filled(call.resuming.output)
        if branch == 1 and step.branches == 1:
            return since_step.first_output
        if call.low is not None:
            assert call.full is not None
            sample = call.low.sample_for(sample, since_step.timestep, scaled=since_step.raw is not None)
            kwargs = self._family.resized_arguments(self._hooks.denoiser, kwargs, call.low.size, call.full)
        rows = row_count(sample)
        if args:
            args = (sample, *args[1:])
        else:
            kwargs = kwargs | {name: sample}
        halved = call.stacked == 2 and step.branches == 1
        if halved:
            first = self._family.conditional_first
            args = half(args, rows, first=first)
            shared = {key: value for key, value in kwargs.items() if key in self._family.shared_arguments}
            kwargs = half(kwargs, rows, first=first) | shared
            rows //= 2
        if not self._hooks.kept():
            # Offloading that prefetches takes hooks off after the denoiser's first call, and others with them.
            self._attach()
        session.enter(branch, rows, _keep(call, step))
        output = forward(*args, **kwargs)
        session.leave(branch, rows)
        if self._hooks.copies:
            output = cloned(output)
        if step.branches == 1 and self._separate:
            since_step.first_output = output
        if halved:
            output = twice(output)
        if call.sharing and call.shared is not None:
            call.shared.output = output
        return output

    def _begin(self, call: CallState, sample: Any, kwargs: dict[str, Any]) -> None:
        """At the first denoiser call everything about the pipeline call is known: compile its plan."""
        assert call.calls is not None
        family, denoiser = self._family, self._hooks.denoiser
        check_no_other_cache(denoiser)
        raw = sample if call.since_step.raw is None else call.since_step.raw
        rows = row_count(raw)
        batch = call.prepared.batch or family.pictures(denoiser, rows, kwargs)
        call.stacked = 1 if self._separate else rows // batch
        if call.stacked > 2 and self._policy.guidance is not None:
            raise InputError(
                f"{type(self._pipe).__name__} weighs {call.stacked} branches in this call, and a policy can stop"
                " guidance between two only: turn the extra guidance off or leave guidance out of the policy"
            )
        full = call.full = family.size_of(sample, kwargs)
        compile_for = functools.partial(
            compile_plan, self._policy, self._structure, full.height, full.width, calls=call.calls, start=call.start
        )
        plan = compile_for(guided=call.stacked > 1 or self._separate, branches=max(call.stacked, 2))
        if self._separate:
            # Whether there is a second call of the denoiser shows after the first.
            call.unguided = compile_for(guided=False)
        first = plan.steps[0]
        if (first.height, first.width) != (full.height, full.width):
            latents = _stack(raw)[:batch] if call.stacked > 1 else _stack(raw)
            size = LatentSize(first.height, first.width, full.frames)
            call.low = LowResolution(family, self._scheduler, self._unhooked, full, size, latents, call.prepared.noised)
        call.plan = plan
        if call.shared is not None and call.start == 0 and call.prepared.noised is None and call.prepared.mask is None:
            call.sharing = call.shared.begin(call.setting, batch, self._policy.key, _stack(raw).device)
            if call.sharing:
                _find_checkpoint(call)

    def _skip(self, call: CallState, checkpoint: Checkpoint) -> Any:
        """A scheduler step that an earlier call has made; with the last of them take on the state it had then."""
        assert call.shared is not None
        call.skipped += 1
        call.since_step = SinceStep()
        if call.skipped == checkpoint.calls:
            call.resuming = None
            if checkpoint.low is None:
                call.low = None
            call.shared.take_on(checkpoint, self._scheduler, self._session, call.low)
        return cloned(checkpoint.result)

    def _fitted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the pipeline passes to its own scheduler's ``step``, for another."""
        try:
            return fitted(self._pipe, self._scheduler, arguments)
        except InputError:
            self._session.end()
            raise

    @functools.cached_property
    def _sample_name(self) -> str:
        return next(iter(inspect.signature(root_of(self._hooks.denoiser).forward).parameters))


def _keep(call: CallState, step: DenoiserCall) -> frozenset[int] | None:
    """What either plan keeps of its first step while it is not known which is followed; None leaves it to the plan."""
    return None if call.unguided is None else step.keep | call.unguided.steps[0].keep


def _find_checkpoint(call: CallState) -> None:
    """Where an earlier call with the same arguments has left a state that serves, go on from there."""
    assert call.shared is not None and call.plan is not None
    guided = call.shared.guided
    if guided is None:
        return
    # The earlier call has shown which of the two plans is followed.
    plan = call.plan if guided or call.unguided is None else call.unguided
    call.resuming = call.shared.find(plan)
    if call.resuming is not None:
        call.plan, call.unguided, call.twice = plan, None, guided


def _stack(sample: Any) -> Tensor:
    return torch.stack(sample) if isinstance(sample, list) else sample


def _with_sample(result: Any, latents: Tensor) -> Any:
    if isinstance(result, tuple):
        return (latents, *result[1:])
    result.prev_sample = latents
    return result
