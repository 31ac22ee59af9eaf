"""``apply_policy`` and its exact inverse.

Three choke points exist in every pipeline and suffice: ``prepare_latents`` (size of the first
latents), the denoiser's forward (units, guidance) and the scheduler (clock, hand-off between
resolutions). All changes are made to instances, never to classes, and can be taken back.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from autotune.errors import InputError, PolicyError
from autotune.plan import compile_plan
from autotune.policy import Policy
from autotune.runtime.hooks import BlockHook, DenoiserHook, UnitHook
from autotune.runtime.models import check_compatible, denoiser_of, native_size
from autotune.runtime.resolution import renoise
from autotune.runtime.session import Session
from autotune.structure import Structure
from autotune.units import find_units

P = TypeVar("P")

_HOOK = "postdiff"
_RUNTIME = "_postdiff_runtime"


def apply_policy(pipe: P, policy: Policy, *, strict: bool = True) -> P:
    """Make ``pipe`` run under ``policy``, in place, until :func:`remove_policy`.

    Afterwards ``pipe("a prompt")`` takes the policy's steps; neither its classes nor its
    weights are touched. Calls may differ in batch size, height and width.

    Args:
        strict: refuse a model or scheduler whose config differs from the one the policy was
            made for. False accepts other configs of the same classes.

    Raises:
        PolicyError: the policy does not fit the pipeline.
        InputError: the pipeline is not supported, or already runs under a policy.

    Example:
        >>> pipe = autotune.apply_policy(pipe, autotune.load_policy("policy.json"))
        >>> image = pipe("fluent red apple").images[0]
    """
    if hasattr(pipe, _RUNTIME):
        raise InputError("this pipeline already runs under a policy: call remove_policy(pipe) first")
    runtime = Runtime(pipe, policy, strict=strict)
    runtime.install()
    setattr(pipe, _RUNTIME, runtime)
    return pipe


def remove_policy(pipe: P) -> P:
    """Take the policy off again; the pipeline then computes bit for bit what it did before.

    Raises:
        InputError: the pipeline runs under no policy.
    """
    runtime: Runtime | None = getattr(pipe, _RUNTIME, None)
    if runtime is None:
        raise InputError("this pipeline runs under no policy: there is nothing to remove")
    runtime.uninstall()
    delattr(pipe, _RUNTIME)
    return pipe


@contextmanager
def applied(pipe: P, policy: Policy, *, strict: bool = True) -> Iterator[P]:
    """Run under the policy inside a ``with`` block only; see :func:`apply_policy`."""
    apply_policy(pipe, policy, strict=strict)
    try:
        yield pipe
    finally:
        remove_policy(pipe)


def session_of(pipe: Any) -> Session | None:
    """The session of a pipeline under a policy (for tests and tools), or None."""
    runtime: Runtime | None = getattr(pipe, _RUNTIME, None)
    return None if runtime is None else runtime.session


class Runtime:
    """One policy on one pipeline: the hooks, the replaced methods and how to take them back."""

    def __init__(self, pipe: Any, policy: Policy, *, strict: bool) -> None:
        self.pipe = pipe
        self.policy = policy
        self.denoiser = denoiser_of(pipe)
        self.scheduler = pipe.scheduler
        self.structure = find_units(self.denoiser)
        self.session = Session()
        self._denoiser_hook = DenoiserHook(self.session)
        self._replaced: list[tuple[Any, str]] = []
        self._hooked: list[nn.Module] = []
        check_compatible(pipe, policy, strict=strict)
        # Raises before anything is changed when a unit or a scale does not fit.
        height, width = (side // pipe.vae_scale_factor for side in native_size(pipe))
        compile_plan(policy, self.structure, height, width)

    def install(self) -> None:
        self._replace(self.scheduler, "set_timesteps", self._set_timesteps)
        self._replace(self.scheduler, "step", self._step)
        self._replace(self.pipe, "prepare_latents", self._prepare_latents)
        self._replace(self.pipe, "progress_bar", self._progress_bar)
        self._hook(self.denoiser, self._denoiser_hook)
        modules = dict(self.denoiser.named_modules())
        for unit in sorted(_units_ever_not_computed(self.policy, self.structure)):
            self._hook(modules[self.structure.units[unit].name], UnitHook(self.session, unit))
            for block in self.structure.blocks:
                if block.last == unit:
                    self._hook(modules[block.name], BlockHook(self.session, block))

    def uninstall(self) -> None:
        for owner, name in reversed(self._replaced):
            delattr(owner, name)
        for module in self._hooked:
            HookRegistry.check_if_exists_or_initialize(module).remove_hook(_HOOK, recurse=False)
        self._replaced.clear()
        self._hooked.clear()
        self.session.reset()

    def _replace(self, owner: Any, name: str, method: Callable[..., Any]) -> None:
        original = getattr(owner, name)
        # update_wrapper, because pipelines ask for the signatures of scheduler methods.
        replacement = functools.update_wrapper(functools.partial(method, original), original)
        setattr(owner, name, replacement)
        self._replaced.append((owner, name))

    def _hook(self, module: nn.Module, hook: ModelHook) -> None:
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, _HOOK)
        self._hooked.append(module)

    def _set_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """The policy's steps instead of the caller's, who may only leave the default or ask for the same."""
        self.session.reset()
        bound = inspect.signature(original).bind(*args, **kwargs)
        asked = bound.arguments.get("num_inference_steps")
        default = inspect.signature(type(self.pipe).__call__).parameters["num_inference_steps"].default
        if asked not in (None, default, self.policy.steps) or bound.arguments.get("timesteps") is not None:
            raise InputError(
                f"the policy has {self.policy.steps} steps and the call asks for {asked or 'timesteps of its own'}:"
                " leave num_inference_steps and timesteps out, or remove_policy(pipe) first"
            )
        bound.arguments["num_inference_steps"] = self.policy.steps
        original(*bound.args, **bound.kwargs)
        if len(self.scheduler.timesteps) != self.policy.steps:
            raise PolicyError(
                f"{type(self.scheduler).__name__} calls the denoiser {len(self.scheduler.timesteps)} times for"
                f" {self.policy.steps} steps; policies support schedulers that call it once a step so far"
            )

    def _prepare_latents(self, original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Compile the plan for this call's size and make the first latents at the first stage's size."""
        pipe = self.pipe
        if pipe.scheduler is not self.scheduler:
            raise InputError(
                "the scheduler was replaced after apply_policy: call remove_policy(pipe), then apply a policy made"
                f" for {type(pipe.scheduler).__name__}"
            )
        bound = inspect.signature(original).bind(*args, **kwargs)
        scale = pipe.vae_scale_factor
        height, width = (int(bound.arguments[side]) // scale for side in ("height", "width"))
        guided = bool(pipe.do_classifier_free_guidance)
        plan = compile_plan(self.policy, self.structure, height, width, guided=guided)
        first = plan.steps[0]
        if (first.height, first.width) != (height, width):
            if bound.arguments.get("latents") is not None:
                raise InputError(
                    f"the policy starts at latents of {first.height}x{first.width} and the call brings its own of full"
                    " size: pass a generator instead of latents"
                )
            bound.arguments["height"], bound.arguments["width"] = first.height * scale, first.width * scale
        latents = original(*bound.args, **bound.kwargs)
        self._denoiser_hook.guided = guided
        self.session.begin(plan, bound.arguments.get("generator"))
        return latents

    def _step(
        self,
        original: Callable[..., Any],
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Advance the clock, and hand over to the next resolution where the plan says so."""
        result = original(model_output, timestep, sample, *args, **kwargs)
        step = self.session.step
        if step is None:
            return result
        if step.handoff is not None:
            assert self.session.plan is not None
            following = self.session.plan.steps[step.index + 1]
            latents = renoise(
                self.scheduler,
                model_output,
                sample,
                timestep,
                self.scheduler.timesteps[step.index + 1],
                (following.height, following.width),
                self.session.generator,
            )
            if isinstance(result, tuple):
                result = (latents, *result[1:])
            else:
                result.prev_sample = latents
        self.session.advance()
        return result

    def _progress_bar(self, original: Callable[..., Any], iterable: Any = None, total: int | None = None) -> Any:
        """Pipelines announce the steps their caller named; the bar should show the policy's."""
        return original(iterable=iterable, total=None if total is None else self.policy.steps)


def _units_ever_not_computed(policy: Policy, structure: Structure) -> frozenset[int]:
    """Units that some step reuses or skips, at any size and with any guidance; the others need no hook."""
    units: set[int] = set()
    for index in range(policy.steps):
        reused = frozenset().union(
            *(structure.resolve(rule.units) for rule in policy.cache if index not in rule.compute_steps)
        )
        units |= reused | (set(range(len(structure.units))) - structure.needed(reused))
    return frozenset(units)
