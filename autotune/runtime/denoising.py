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
from autotune.plan import DenoiserCall, Guided, Plan, compile_plan
from autotune.plan.structure import Structure
from autotune.policy import Policy
from autotune.runtime.branches import Difference, half, row_count
from autotune.runtime.call import CallState, SinceStep
from autotune.runtime.compatibility import fitted
from autotune.runtime.guidance import both, difference_in, guidance_in, multiplied, unconditional
from autotune.runtime.guiders import Guiders
from autotune.runtime.hook_set import HookShare
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
        guiders: that weigh what the denoiser puts out.

    Attributes:
        aside: whether the denoiser is called by others than the pipeline, from inside of its call.
    """

    def __init__(
        self,
        pipe: Any,
        family: Family,
        policy: Policy,
        structure: Structure,
        scheduler: Any,
        unhooked: dict[str, Any],
        hooks: HookShare,
        attach: Callable[[], None],
        session: Session,
        guiders: Guiders,
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
        self._guiders = guiders
        self.aside = False
        self._separate = family.branches == "separate"

    def evaluate(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of the denoiser.

        Raises:
            InputError: the pipeline does in this call what no policy plans.
        """
        session = self._session
        call = session.call
        if self.aside or (call.plan is None and call.calls is None):
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
            call.shared.leave(session.plan, result, self._scheduler, self._guiders, session, call.low, guided=guided)
        return result

    def _evaluate(
        self, call: CallState, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = self._names[0]
        sample = args[0] if args else kwargs[name]
        if call.plan is None:
            self._begin(call, sample, args, kwargs)
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
        rows = row_count(sample)
        stacked = self._stacked(call, rows)
        guidance = guidance_in(call, step, rows // 2 if stacked == 2 else rows)
        alone = guidance is not Guided.BOTH
        if branch == 1 and alone:
            return unconditional(call, since_step.first_output, guidance, step.factor)
        if call.low is not None:
            assert call.full is not None
            sample = call.low.sample_for(sample, since_step.timestep, scaled=since_step.raw is not None)
            kwargs = self._family.resized_arguments(self._hooks.denoiser, kwargs, call.low.size, call.full)
        if args:
            args = (sample, *args[1:])
        else:
            kwargs = kwargs | {name: sample}
        listed = isinstance(sample, list)
        halved = stacked == 2 and alone
        if halved:
            args, kwargs = self._halved(args, kwargs, rows, listed=listed)
            rows //= 2
        if not self._hooks.all.kept():
            # Offloading that prefetches takes hooks off after the denoiser's first call, and others with them.
            self._attach()
        session.enter(branch, rows, _keep(call, step))
        output = forward(*args, **kwargs)
        keeps, order = not alone and session.keeps_difference, self._family.conditional_first
        times = not alone and step.factor != 1
        difference = None
        if (keeps or times) and stacked == 2:
            difference = difference_in(output, rows // 2, conditional_first=order, listed=listed)
        elif (keeps or times) and branch == 1:
            difference = Difference.of(since_step.first_output, output, rows)
        session.leave(branch, rows, difference if keeps else None)
        if self._hooks.copies:
            output = cloned(output)
        if self._separate and branch == 0 and (keeps or alone or times):
            since_step.first_output = cloned(output)
        if halved:
            output = both(call, output, guidance, step.factor, conditional_first=order, listed=listed)
        elif times and difference is not None and stacked == 2:
            output = multiplied(output, difference, step.factor, conditional_first=order, listed=listed)
        elif times and difference is not None:
            output = difference.unconditional(since_step.first_output, step.factor)
        if call.sharing and call.shared is not None:
            call.shared.output = output
        return output

    def _begin(self, call: CallState, sample: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """At the first denoiser call everything about the pipeline call is known: compile its plan."""
        assert call.calls is not None
        family, denoiser = self._family, self._hooks.denoiser
        check_no_other_cache(denoiser)
        raw = sample if call.since_step.raw is None else call.since_step.raw
        rows = row_count(raw)
        batch = call.pictures = call.prepared.batch or family.pictures(denoiser, rows, kwargs)
        call.stacked = self._stacked(call, rows)
        full = call.full = family.size_of(sample, kwargs)
        compile_for = functools.partial(
            compile_plan, self._policy, self._structure, full.height, full.width, calls=call.calls, start=call.start
        )
        plan = compile_for(guided=call.stacked > 1 or self._separate, branches=max(call.stacked, 2))
        if call.stacked == 2 and any(step.guidance is not Guided.BOTH for step in plan.steps):
            # What cannot be halved is refused before anything is computed.
            self._halved(args, kwargs, rows, listed=isinstance(sample, list))
        if self._separate:
            # Whether there is a second call of the denoiser shows after the first.
            call.unguided = compile_for(guided=False)
        self._check_lower(call, plan, kwargs)
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

    def _check_lower(self, call: CallState, plan: Plan, kwargs: dict[str, Any]) -> None:
        """Refuse what cannot be done at a lower resolution.

        Raises:
            InputError: below full size the call begins with latents whose noise nobody knows, or ends, or the denoiser
                is given what ControlNets and adapters have computed at full size.
        """
        assert call.full is not None
        part, full, first = call.prepared.part, (call.full.height, call.full.width), plan.steps[0]
        if (first.height, first.width) != full:
            fixed = self._family.full_size_argument(kwargs)
            if fixed is not None:
                raise InputError(
                    f"the denoiser is given {fixed}, which others compute from latents of full size, and the policy"
                    " begins at a lower resolution: leave resolution out of the policy, or call remove_policy(pipe)"
                )
        begun = call.prepared.noised is None and (call.start > 0 or part.start is not None)
        if begun and (first.height, first.width) != full:
            raise InputError(
                "the call goes on from latents that are denoised in part, and the policy has a lower resolution there,"
                " to which only a picture or noise can be taken: leave denoising_start and latents out, or begin after"
                " the policy's lower resolutions"
            )
        calls = part.calls(self._scheduler, call.start)
        if calls < len(plan.steps) and (plan.steps[calls].height, plan.steps[calls].width) != full:
            raise InputError(
                f"denoising_end={part.end} ends the call where the policy has a lower resolution: end it after step"
                f" {self._policy.resolution[-1].until_step} of {self._policy.steps}"
            )

    def _stacked(self, call: CallState, rows: int) -> int:
        """Guidance branches in one batch of the denoiser.

        Raises:
            InputError: there are more than two, or pictures without a row, and guidance stops under the policy.
        """
        if self._separate:
            return 1
        stacked, rest = divmod(rows, call.pictures)
        if self._policy.guidance is not None and (rest or stacked not in (1, 2)):
            raise InputError(
                f"{type(self._pipe).__name__} gives its denoiser {rows} rows for {call.pictures} pictures, of which no"
                " policy knows the conditional ones: leave guidance out of the policy, or call remove_policy(pipe)"
            )
        if call.plan is not None and stacked != call.stacked:
            # What stands in for the outputs of calls that are not made would have other rows.
            call.sharing = False
        return stacked

    def _halved(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], rows: int, *, listed: bool
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for the conditional branch, given those for both."""
        family = self._family

        def conditional(name: str, value: Any) -> Any:
            if name in family.shared_arguments:
                return value
            return half(name, value, rows, first=family.conditional_first, listed=listed)

        return (
            tuple(conditional(name, value) for name, value in zip(self._names, args, strict=False)),
            {name: conditional(name, value) for name, value in kwargs.items()},
        )

    def _skip(self, call: CallState, checkpoint: Checkpoint) -> Any:
        """A scheduler step that an earlier call has made; with the last of them take on the state it had then."""
        assert call.shared is not None
        call.skipped += 1
        call.since_step = SinceStep()
        if call.skipped == checkpoint.calls:
            call.resuming = None
            if checkpoint.low is None:
                call.low = None
            call.shared.take_on(checkpoint, self._scheduler, self._guiders, self._session, call.low)
        return cloned(checkpoint.result)

    def _fitted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the pipeline passes to its own scheduler's ``step``, for another."""
        try:
            return fitted(self._pipe, self._scheduler, arguments)
        except InputError:
            self._session.end()
            raise

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        """The denoiser's arguments, the sample first."""
        return tuple(inspect.signature(root_of(self._hooks.denoiser).forward).parameters)


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
