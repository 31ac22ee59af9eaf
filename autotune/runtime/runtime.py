"""One policy on one pipeline: the hooks, the replaced methods and how to take them back.

Four choke points exist in every pipeline and suffice: the scheduler's ``set_timesteps`` (how many
steps), its ``step`` (clock, hand-off between resolutions), the denoiser's forward (units, guidance,
sample) and ``prepare_latents`` (how many pictures). All changes are made to instances, never to
classes, and can be taken back.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.families import LatentSize, family_of
from autotune.pipelines.units import find_units
from autotune.plan import Plan, compile_plan, resolve_rules, taken_at
from autotune.plan.structure import Structure
from autotune.policy import Policy
from autotune.runtime.branches import half, row_count, twice
from autotune.runtime.compatibility import fitted
from autotune.runtime.hooks import BlockHook, CallHook, UnitHook, is_compiled
from autotune.runtime.lowres import LowResolution, Noised
from autotune.runtime.models import check_compatible, check_no_other_cache, latents_of, root_of
from autotune.runtime.prefix.checkpoints import Checkpoint, PrefixCache
from autotune.runtime.prefix.sharing import SharedCall, setting_of, shared_call
from autotune.runtime.schedulers import calls_per_step
from autotune.runtime.session import Session
from autotune.runtime.snapshot import cloned, filled
from autotune.runtime.timesteps import arguments_for, solver_under

ATTRIBUTE = "_postdiff_runtime"
_NOTHING: Any = object()


class Runtime:
    """See the module docstring. Raises in ``__init__``, before anything is changed, where the policy does not fit.

    With ``prefixes``, :meth:`call_sharing` makes pipeline calls that share what they begin with.
    """

    def __init__(self, pipe: Any, policy: Policy, *, strict: bool, prefixes: PrefixCache | None = None) -> None:
        self.pipe = pipe
        self.policy = policy
        self.family = family_of(pipe)
        self.denoiser: nn.Module = self.family.denoiser(pipe)
        self.structure = find_units(self.denoiser)
        check_compatible(pipe, policy, strict=strict)
        self.plain_scheduler = pipe.scheduler
        self.scheduler, _ = solver_under(policy, pipe, pipe.scheduler)
        self._is_own = type(self.scheduler) is type(self.plain_scheduler)
        if policy.model is not None:
            # Whether another size fits shows when it is asked for, before the first denoising step.
            full = latents_of(pipe, policy.model.height, policy.model.width)
            compile_plan(policy, self.structure, full.height, full.width)
        self._prefixes = prefixes
        if prefixes is not None:
            prefixes.serve(root_of(self.denoiser))
        self._shared: SharedCall | None = None
        self._make_hooks()
        self._unhooked: dict[str, Any] = {}
        # With what the instance itself had by that name, as other tools leave it.
        self._replaced: list[tuple[Any, str, Any]] = []
        self._denoiser_hook = CallHook(self._evaluate)
        self._forget()

    def install(self) -> None:
        if self.scheduler is not self.plain_scheduler:
            self.pipe.scheduler = self.scheduler
        self._replace(self.scheduler, "set_timesteps", self._set_timesteps, accepts=("timesteps", "sigmas", "mu"))
        self._replace(self.scheduler, "step", self._step)
        for name in ("scale_model_input", "add_noise", "scale_noise"):
            if hasattr(self.scheduler, name):
                self._unhooked[name] = getattr(self.scheduler, name)
        if self.policy.resolution:
            methods: dict[str, Callable[..., Any]] = {
                "scale_model_input": self._scale,
                "add_noise": self._noise,
                "scale_noise": self._noise,
            }
            for name in self._unhooked:
                self._replace(self.scheduler, name, methods[name])
            if hasattr(self.pipe, "prepare_mask_latents"):
                self._replace(self.pipe, "prepare_mask_latents", self._prepare_mask)
        methods = {
            "prepare_latents": self._prepare_latents,
            "get_timesteps": self._get_timesteps,
            "progress_bar": self._progress_bar,
            "maybe_free_model_hooks": self._end_call,
            "save_pretrained": self._save_pretrained,
        }
        for name, method in methods.items():
            if hasattr(self.pipe, name):
                self._replace(self.pipe, name, method)
        self._attach_hooks()
        self.pipe.__deepcopy__ = self._deepcopy

    def uninstall(self) -> None:
        self._forget()
        for owner, name, own in reversed(self._replaced):
            if own is _NOTHING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)
        self._denoiser_hook.detach()
        for hook in self._hooks_by_module().values():
            hook.place.leave()
        if "__deepcopy__" in vars(self.pipe):
            del self.pipe.__deepcopy__
        if self.pipe.scheduler is self.scheduler and self.scheduler is not self.plain_scheduler:
            self.pipe.scheduler = self.plain_scheduler
        self._replaced.clear()

    def call_sharing(self, *args: Any, **kwargs: Any) -> Any:
        """Call the pipeline; see :func:`autotune.runtime.apply.applied_sharing`."""
        assert self._prefixes is not None
        shared = self._shared = shared_call(self._prefixes, args, kwargs)
        try:
            output = self.pipe(*args, **kwargs)
        finally:
            self._shared = None
        if shared is not None:
            shared.end()
        return output

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """The plain pipeline inside a ``with`` block."""
        self.uninstall()
        try:
            yield
        finally:
            self.install()

    # Setting up

    def _make_hooks(self) -> None:
        structure = self.structure
        modules = dict(root_of(self.denoiser).named_modules())
        rules = resolve_rules(self.policy, structure)
        residuals = {u: first for rule in rules if rule.mode == "residual" for u, first in rule.units.items()}
        units = units_ever_not_computed(self.policy, structure) | set(residuals) | set(residuals.values())
        self.hooks = {
            unit: UnitHook(structure.units[unit], modules[structure.units[unit].name]) for unit in sorted(units)
        }
        for unit, first in residuals.items():
            self.hooks[unit].residual = True
            self.hooks[unit].first = self.hooks[first]
            self.hooks[first].notes_entry = True
        self.block_hooks = {
            block.name: BlockHook(
                block.units,
                self.hooks[block.last],
                None if block.outputs is None else [self.hooks[output] for output in block.outputs],
            )
            for block in structure.blocks
            if all(unit in self.hooks for unit in (block.last, *(block.outputs or ())))
        }
        self.session = Session(
            self.hooks, list(self.block_hooks.values()), conditional_first=self.family.conditional_first
        )

    def _replace(self, owner: Any, name: str, method: Callable[..., Any], accepts: Sequence[str] = ()) -> None:
        original = getattr(owner, name)
        # update_wrapper, because pipelines ask for the signatures of scheduler methods.
        replacement: Any = functools.update_wrapper(functools.partial(method, original), original)
        if accepts:
            signature = inspect.signature(original)
            more = [
                inspect.Parameter(argument, inspect.Parameter.KEYWORD_ONLY, default=None)
                for argument in accepts
                if argument not in signature.parameters
            ]
            named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
            replacement.__signature__ = signature.replace(parameters=[*named, *more])
        self._replaced.append((owner, name, vars(owner).get(name, _NOTHING)))
        setattr(owner, name, replacement)

    def _attach_hooks(self) -> None:
        """Put every hook where it belongs, also after the denoiser was compiled, offloaded or given LoRA layers."""
        denoiser = self.family.denoiser(self.pipe)
        if root_of(denoiser) is not root_of(self.denoiser):
            raise InputError(
                f"the pipeline's {type(root_of(denoiser)).__name__} was replaced after apply_policy: call"
                " remove_policy(pipe), then apply a policy made for it"
            )
        self.denoiser = denoiser
        self._denoiser_hook.attach(denoiser)
        modules = dict(root_of(denoiser).named_modules())
        compiled = {name for name, module in modules.items() if name and is_compiled(module)}
        whole = self.session.copies = is_compiled(denoiser)
        for name, hook in self._hooks_by_module().items():
            parts = name.split(".")
            enclosed = whole or any(".".join(parts[:count]) in compiled for count in range(1, len(parts)))
            outside = name in compiled and not enclosed
            hook.place.move(modules[name], outside=outside)
            if isinstance(hook, UnitHook):
                hook.copies = outside

    def _hooks_by_module(self) -> dict[str, UnitHook | BlockHook]:
        units = {self.structure.units[unit].name: hook for unit, hook in self.hooks.items()}
        return {**units, **self.block_hooks}

    # State of the pipeline call in progress

    def _forget(self) -> None:
        """Everything about a pipeline call."""
        self._batch: int | None = None
        self._generator: Any = None
        self._noised: Noised | None = None
        self._mask: Tensor | None = None
        self._forget_denoising()

    def _forget_denoising(self) -> None:
        """What is known once timesteps are set; some pipelines make their latents before, some after."""
        self.session.reset()
        self._calls: tuple[int, ...] | None = None
        self._start = 0
        self._low: LowResolution | None = None
        self._unguided: Plan | None = None
        self._branches_stacked = 1
        self._guided_calls = False
        self._sharing = False
        self._setting: str | None = None
        self._resuming: Checkpoint | None = None
        self._skipped = 0
        self._new_step()

    def _new_step(self) -> None:
        self._branch = 0
        self._first_output: Any = None
        self._raw: Any = None
        self._scale_timestep: Any = None

    # Replaced methods

    def _set_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """The policy's steps instead of the caller's, who may only leave the default or ask for the same."""
        self._forget_denoising()
        self._attach_hooks()
        bound, extra = _bind(original, args, kwargs)
        arguments = arguments_for(self.policy, self.pipe, self.scheduler, bound, extra)
        original(**arguments)
        self._calls = calls_per_step(self.scheduler, self.policy.steps, len(self.scheduler.timesteps))
        if self._shared is not None:
            self._setting = setting_of(self.scheduler, arguments)

    def _get_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Image-to-image: how many of the policy's steps are left at this strength."""
        bound = inspect.signature(original).bind(*args, **kwargs)
        bound.arguments["num_inference_steps"] = self.policy.steps
        result = original(*bound.args, **bound.kwargs)
        self._start = len(self.scheduler.timesteps) - len(result[0])
        return result

    def _prepare_latents(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._noised = None
        result = original(*args, **kwargs)
        latents = result[0] if isinstance(result, tuple) else result
        self._batch = row_count(latents)
        self._generator = inspect.signature(original).bind(*args, **kwargs).arguments.get("generator")
        return result

    def _prepare_mask(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        self._mask = result[0]
        return result

    def _progress_bar(self, original: Callable[..., Any], iterable: Any = None, total: int | None = None) -> Any:
        """Pipelines announce the steps their caller named; the bar should show the policy's."""
        if total is not None:
            total = self.policy.steps if self._start == 0 else min(total, self.policy.steps)
        return original(iterable=iterable, total=total)

    def _end_call(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """What pipelines do last: a call that was interrupted leaves nothing behind either."""
        self._forget()
        original(*args, **kwargs)

    def _save_pretrained(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The plain pipeline is saved: its own scheduler, no trace of the policy."""
        with self.suspended():
            # Uninstalling took the replacement away; this is the pipeline's own method again.
            return self.pipe.save_pretrained(*args, **kwargs)

    def _deepcopy(self, memo: dict[int, Any]) -> Any:
        """A copy runs under the same policy, with hooks of its own."""
        with self.suspended():
            delattr(self.pipe, ATTRIBUTE)
            try:
                clone = copy.deepcopy(self.pipe, memo)
            finally:
                setattr(self.pipe, ATTRIBUTE, self)
        runtime = Runtime(clone, self.policy, strict=False)
        runtime.install()
        setattr(clone, ATTRIBUTE, runtime)
        return clone

    def _scale(self, original: Callable[..., Any], sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        bound = inspect.signature(original).bind(sample, *args, **kwargs)
        self._raw, self._scale_timestep = sample, bound.arguments.get("timestep")
        scaled: Tensor = original(sample, *args, **kwargs)
        return scaled

    def _noise(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Note what noise is added to; inpainting does it after every step, to its surroundings."""
        noised = Noised(*list(inspect.signature(original).bind(*args, **kwargs).arguments.values())[:3])
        if self.session.plan is None:
            self._noised = noised
        elif self._low is not None and self._mask is not None:
            self._low.inpaint(noised, self._mask)
        result: Tensor = original(*args, **kwargs)
        return result

    def _step(
        self,
        original: Callable[..., Any],
        model_output: Any,
        timestep: Any,
        sample: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Advance the clock, and hand over to the next resolution where the plan says so."""
        if not self._is_own:
            kwargs = self._fitted(kwargs)
        step = self.session.step
        if step is None or self._branch == 0:
            return original(model_output, timestep, sample, *args, **kwargs)
        if self._resuming is not None:
            return self._skip(self._resuming)
        if self._unguided is not None:
            # The first step shows whether there is guidance; what only the other plan takes later goes.
            self._guided_calls = self._branch > 1
            if not self._guided_calls:
                self._plan = self._unguided
            self.session.revise(self._plan)
            self._unguided = None
        low = self._low
        placeholder = sample
        if low is not None:
            sample = low.sample_in_step(sample)
        result = original(model_output, timestep, sample, *args, **kwargs)
        if low is not None:
            low.generator = self._generator if self._generator is not None else kwargs.get("generator")
            following = result[0] if isinstance(result, tuple) else result.prev_sample
            latents = low.latents = following
            if step.handoff is not None:
                target = self.session.following
                size = LatentSize(target.height, target.width, low.size.frames)
                latents = low.hand_over(step.handoff, step.index, model_output, sample, following, size)
                if size == self._full:
                    self._low = None
            if self._low is not None:
                latents = low.placeholder(placeholder)
            result = _with_sample(result, latents)
        self._new_step()
        self.session.advance()
        if self.session.plan is None:
            self._forget()
        elif self._sharing and self._shared is not None:
            guided = self._branches_stacked == 2 or self._guided_calls
            self._shared.leave(self._plan, result, self.scheduler, self.session, self._low, guided=guided)
        return result

    def _fitted(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the pipeline passes to its own scheduler's ``step``, for another."""
        try:
            return fitted(self.pipe, self.scheduler, arguments)
        except InputError:
            self._forget()
            raise

    def _evaluate(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of the denoiser."""
        if self.pipe.scheduler is not self.scheduler:
            self._forget()
            raise InputError(
                f"the scheduler was replaced by a {type(self.pipe.scheduler).__name__} after apply_policy: call"
                " remove_policy(pipe), then apply a policy made for it"
            )
        if self.session.plan is None and self._calls is None:
            return forward(*args, **kwargs)
        try:
            return self._evaluate_step(forward, args, kwargs)
        except BaseException:
            self._forget()
            raise

    def _evaluate_step(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = self._sample_name
        sample = args[0] if args else kwargs[name]
        if self.session.plan is None:
            self._begin(sample, kwargs)
        step = self.session.step
        assert step is not None
        branch, self._branch = self._branch, self._branch + 1
        if branch == (2 if self.family.branches == "separate" else 1):
            raise InputError(
                f"{type(self.pipe).__name__} evaluates its denoiser more than once a step in this call (an extra"
                " guidance technique?), which no policy plans: turn it off or call remove_policy(pipe)"
            )
        if self._resuming is not None:
            return filled(self._resuming.output)
        if branch == 1 and step.branches == 1:
            return self._first_output
        if self._low is not None:
            sample = self._low.sample_for(sample, self._scale_timestep, scaled=self._raw is not None)
            kwargs = self.family.resized_arguments(self.denoiser, kwargs, self._low.size, self._full)
        rows = row_count(sample)
        if args:
            args = (sample, *args[1:])
        else:
            kwargs = kwargs | {name: sample}
        halved = self._branches_stacked == 2 and step.branches == 1
        if halved:
            first = self.family.conditional_first
            args = half(args, rows, first=first)
            shared = {key: value for key, value in kwargs.items() if key in self.family.shared_arguments}
            kwargs = half(kwargs, rows, first=first) | shared
            rows //= 2
        places = [hook.place for hook in self.hooks.values()] + [hook.place for hook in self.block_hooks.values()]
        if not all(place.kept() for place in places):
            # Offloading that prefetches takes hooks off after the denoiser's first call, and others with them.
            self._attach_hooks()
        keep = None
        if self._unguided is not None:
            keep = step.keep | self._unguided.steps[0].keep
        self.session.enter(branch, rows, keep)
        output = forward(*args, **kwargs)
        self.session.leave(branch, rows)
        if self.session.copies:
            output = cloned(output)
        if step.branches == 1 and self.family.branches == "separate":
            self._first_output = output
        if halved:
            output = twice(output)
        if self._sharing and self._shared is not None:
            self._shared.output = output
        return output

    def _begin(self, sample: Any, kwargs: dict[str, Any]) -> None:
        """At the first denoiser call everything about the pipeline call is known: compile its plan."""
        assert self._calls is not None
        check_no_other_cache(self.denoiser)
        raw = sample if self._raw is None else self._raw
        rows = row_count(raw)
        batch = self._batch or self.family.pictures(self.denoiser, rows, kwargs)
        self._branches_stacked = rows // batch
        if self.family.branches == "separate":
            self._branches_stacked = 1
        self._full = self.family.size_of(sample, kwargs)
        compile_for = functools.partial(
            compile_plan,
            self.policy,
            self.structure,
            self._full.height,
            self._full.width,
            calls=self._calls,
            start=self._start,
        )
        plan = compile_for(guided=self._branches_stacked == 2 or self.family.branches == "separate")
        if self.family.branches == "separate":
            # Whether there is a second call of the denoiser shows after the first.
            self._unguided = compile_for(guided=False)
        first = plan.steps[0]
        if (first.height, first.width) != (self._full.height, self._full.width):
            latents = _stack(raw)[:batch] if self._branches_stacked > 1 else _stack(raw)
            size = LatentSize(first.height, first.width, self._full.frames)
            self._low = LowResolution(
                self.family, self.scheduler, self._unhooked, self._full, size, latents, self._noised
            )
        self._plan = plan
        if self._shared is not None and self._start == 0 and self._noised is None and self._mask is None:
            key = self.policy.key
            self._sharing = self._shared.begin(self._setting, batch, key, _stack(raw).device)
            if self._sharing:
                self._find_checkpoint(self._shared)
        self.session.begin(self._plan)

    # Sharing with earlier calls

    def _find_checkpoint(self, shared: SharedCall) -> None:
        """Where an earlier call with the same arguments has left a state that serves, go on from there."""
        guided = shared.guided
        if guided is None:
            return
        # The earlier call has shown which of the two plans is followed.
        plan = self._plan if guided or self._unguided is None else self._unguided
        self._resuming = shared.find(plan)
        if self._resuming is not None:
            self._plan, self._unguided, self._guided_calls = plan, None, guided

    def _skip(self, checkpoint: Checkpoint) -> Any:
        """A scheduler step that an earlier call has made; with the last of them take on the state it had then."""
        assert self._shared is not None
        self._skipped += 1
        self._new_step()
        if self._skipped == checkpoint.calls:
            self._resuming = None
            if checkpoint.low is None:
                self._low = None
            self._shared.take_on(checkpoint, self.scheduler, self.session, self._low)
        return cloned(checkpoint.result)

    @functools.cached_property
    def _sample_name(self) -> str:
        return next(iter(inspect.signature(root_of(self.denoiser).forward).parameters))


def units_ever_not_computed(policy: Policy, structure: Structure) -> frozenset[int]:
    """Units that some step takes from memory or skips, at any size and with any guidance; the others need no hook."""
    rules = resolve_rules(policy, structure)
    units: set[int] = set()
    for step in range(policy.steps):
        taken = taken_at(step, rules, structure)
        units |= set(taken) | (set(range(len(structure.units))) - structure.needed(taken))
    return frozenset(units)


def _bind(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments by name: those ``method`` takes, and those it does not."""
    parameters = inspect.signature(method).parameters
    known = {key: value for key, value in kwargs.items() if key in parameters}
    bound = inspect.signature(method).bind_partial(*args, **known)
    return dict(bound.arguments), {key: value for key, value in kwargs.items() if key not in parameters}


def _stack(sample: Any) -> Tensor:
    return torch.stack(sample) if isinstance(sample, list) else sample


def _with_sample(result: Any, latents: Tensor) -> Any:
    if isinstance(result, tuple):
        return (latents, *result[1:])
    result.prev_sample = latents
    return result
