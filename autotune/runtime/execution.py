"""One policy on one pipeline: its solver, the call in progress, and the methods it replaces while that lasts.

Four choke points exist in every pipeline and suffice: the scheduler's ``set_timesteps`` (how many
steps), its ``step`` (clock, hand-off between resolutions), the denoiser's forward (units, guidance,
sample) and ``prepare_latents`` (how many pictures). All changes are made to instances, never to
classes, and can be taken back. What belongs to one call of the pipeline is in ``session.call``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autotune.core.errors import InputError
from autotune.pipelines.families import Family, scheduler_calls
from autotune.plan.structure import Structure
from autotune.policy import Policy
from autotune.runtime.branches import row_count
from autotune.runtime.call import Part, Prepared
from autotune.runtime.denoising import Denoising
from autotune.runtime.guiders import Guiders
from autotune.runtime.hook_set import HookShare
from autotune.runtime.lowres import Noised
from autotune.runtime.prefix.sharing import setting_of
from autotune.runtime.replacements import Replacements
from autotune.runtime.schedulers import calls_per_step
from autotune.runtime.session import Session
from autotune.runtime.timesteps import arguments_for

_CALLBACKS = ("callback_on_step_end", "callback")


class Execution:
    """See the module docstring.

    Args:
        pipe: the pipeline.
        family: what is known of its class.
        policy: what calls run under.
        structure: of the denoiser.
        scheduler: that the policy has the pipeline run under.
        hooks: those on the denoiser that the policy uses.
        attach: puts all of them back where they belong.

    Attributes:
        session: the call in progress.
    """

    def __init__(
        self,
        pipe: Any,
        family: Family,
        policy: Policy,
        structure: Structure,
        scheduler: Any,
        hooks: HookShare,
        attach: Callable[[], None],
    ) -> None:
        self.policy = policy
        self.scheduler = scheduler
        self.session = Session(hooks, conditional_first=family.conditional_first)
        self._pipe = pipe
        self._family = family
        self._attach_hooks = attach
        # The scheduler's own methods by name.
        self._unhooked: dict[str, Any] = {}
        self._replaced = Replacements()
        self._guiders = Guiders(pipe, family.guiders, self.session)
        self._denoising = Denoising(
            pipe, family, policy, structure, scheduler, self._unhooked, hooks, attach, self.session, self._guiders
        )
        self.evaluate = self._denoising.evaluate

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Take hold of the scheduler and of the pipeline's own methods.

        Args:
            arguments: of the call.
        """
        latents = arguments.get("latents")
        prepared = Prepared(
            # Some image-to-image pipelines prepare none where they are given.
            batch=len(latents) // self._family.latent_rows if isinstance(latents, Tensor) else None,
            part=Part(arguments.get("denoising_start"), arguments.get("denoising_end")),
        )
        self.session.renew(prepared=prepared, shared=self.session.call.shared)
        # Past __setattr__, which records components in the config.
        vars(self._pipe)["scheduler"] = self.scheduler
        self._guiders.begin()
        replace = self._replaced.add
        for name in ("scale_model_input", "add_noise", "scale_noise"):
            if hasattr(self.scheduler, name):
                self._unhooked[name] = getattr(self.scheduler, name)
        replace(self.scheduler, "set_timesteps", self._set_timesteps, accepts=("timesteps", "sigmas", "mu"))
        replace(self.scheduler, "step", self._denoising.step)
        if self.policy.resolution:
            methods: dict[str, Callable[..., Any]] = {
                "scale_model_input": self._scale,
                "add_noise": self._noise,
                "scale_noise": self._noise,
            }
            for name in self._unhooked:
                replace(self.scheduler, name, methods[name])
            if hasattr(self._pipe, "prepare_mask_latents"):
                replace(self._pipe, "prepare_mask_latents", self._prepare_mask)
        methods = {
            "prepare_latents": self._prepare_latents,
            "get_timesteps": self._get_timesteps,
            "progress_bar": self._progress_bar,
        }
        for name, method in methods.items():
            if hasattr(self._pipe, name):
                replace(self._pipe, name, method)

    def end(self) -> None:
        """Give back what :meth:`begin` took, once or again."""
        self.session.end()
        self._replaced.undo()
        self._guiders.end()
        self._unhooked.clear()

    def with_steps(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Arguments of a call that names the policy's steps, where the pipeline shifts noise levels by their number."""
        calls = scheduler_calls(self._pipe)
        if calls is None or not calls.shifts_by_steps:
            return args, kwargs
        signature = inspect.signature(original)
        bound, name = signature.bind(*args, **kwargs), "num_inference_steps"
        # Other steps are refused once the pipeline sets them.
        if bound.arguments.get(name) in (None, signature.parameters[name].default):
            bound.arguments[name] = self.policy.steps
        return bound.args, bound.kwargs

    def with_callbacks(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a call whose callbacks may do with the denoiser what they like: preview, say, by a sibling."""

        def aside(callback: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(callback)
            def called(*args: Any, **kwargs: Any) -> Any:
                self._denoising.aside = True
                try:
                    return callback(*args, **kwargs)
                finally:
                    self._denoising.aside = False

            return called

        # Of diffusers' own callbacks, which are no functions, pipelines ask more than to be called.
        return {
            name: aside(value) if name in _CALLBACKS and inspect.isroutine(value) else value
            for name, value in kwargs.items()
        }

    # Replaced methods

    def _set_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """The policy's steps instead of the caller's, who may only leave the default or ask for the same."""
        before = self.session.call
        call = self.session.renew(prepared=before.prepared, shared=before.shared)
        self._attach_hooks()
        bound, extra = bind(original, args, kwargs)
        arguments = arguments_for(self.policy, self._pipe, self.scheduler, bound, extra)
        original(**arguments)
        call.calls = calls_per_step(self.scheduler, self.policy.steps, len(self.scheduler.timesteps))
        if call.shared is not None:
            call.setting = setting_of(self.scheduler, arguments, self._guiders.setting())

    def _get_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Image-to-image: how many of the policy's steps are left at this strength."""
        bound = inspect.signature(original).bind(*args, **kwargs)
        bound.arguments["num_inference_steps"] = self.policy.steps
        result = original(*bound.args, **bound.kwargs)
        if len(result[0]) == 0:
            raise InputError(
                f"the call leaves out all of the policy's {self.policy.steps} steps: raise strength, or lower"
                " denoising_start"
            )
        self.session.call.start = len(self.scheduler.timesteps) - len(result[0])
        return result

    def _prepare_latents(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        prepared = self.session.call.prepared
        prepared.noised = None
        result = original(*args, **kwargs)
        latents = result[0] if isinstance(result, tuple) else result
        prepared.batch = row_count(latents)
        prepared.generator = inspect.signature(original).bind(*args, **kwargs).arguments.get("generator")
        return result

    def _prepare_mask(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        self.session.call.prepared.mask = result[0]
        return result

    def _progress_bar(self, original: Callable[..., Any], iterable: Any = None, total: int | None = None) -> Any:
        """Pipelines announce the steps their caller named; the bar should show the policy's."""
        if total is not None and not self.session.call.prepared.part.ends:
            total = self.policy.steps if self.session.call.start == 0 else min(total, self.policy.steps)
        return original(iterable=iterable, total=total)

    def _scale(self, original: Callable[..., Any], sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        bound = inspect.signature(original).bind(sample, *args, **kwargs)
        since_step = self.session.call.since_step
        since_step.raw, since_step.timestep = sample, bound.arguments.get("timestep")
        scaled: Tensor = original(sample, *args, **kwargs)
        return scaled

    def _noise(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Note what noise is added to; inpainting does it after every step, outside of the mask."""
        noised = Noised.of(inspect.signature(original).bind(*args, **kwargs).arguments)
        call = self.session.call
        if call.plan is None:
            call.prepared.noised = noised
        elif call.low is not None and call.prepared.mask is not None:
            call.low.inpaint(noised, call.prepared.mask)
        result: Tensor = original(*args, **kwargs)
        return result


def bind(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments by name: those ``method`` takes, and those it does not."""
    parameters = inspect.signature(method).parameters
    known = {key: value for key, value in kwargs.items() if key in parameters}
    bound = inspect.signature(method).bind_partial(*args, **known)
    return dict(bound.arguments), {key: value for key, value in kwargs.items() if key not in parameters}
