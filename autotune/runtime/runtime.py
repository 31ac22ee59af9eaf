"""One policy on one pipeline: the hooks, the replaced methods and how to take them back.

Four choke points exist in every pipeline and suffice: the scheduler's ``set_timesteps`` (how many
steps), its ``step`` (clock, hand-off between resolutions), the denoiser's forward (units, guidance,
sample) and ``prepare_latents`` (how many pictures). All changes are made to instances, never to
classes, and can be taken back. What belongs to one call of the pipeline is in ``session.call``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.families import family_of
from autotune.pipelines.units import find_units
from autotune.plan import compile_plan
from autotune.policy import Policy
from autotune.runtime.branches import row_count
from autotune.runtime.denoising import Denoising
from autotune.runtime.hook_set import HookSet
from autotune.runtime.hooks import CallHook
from autotune.runtime.lowres import Noised
from autotune.runtime.models import check_compatible, latents_of, root_of
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.runtime.prefix.sharing import setting_of, shared_call
from autotune.runtime.replacements import Replacements
from autotune.runtime.schedulers import calls_per_step
from autotune.runtime.session import Session
from autotune.runtime.timesteps import arguments_for, solver_under

ATTRIBUTE = "_postdiff_runtime"


class Runtime:
    """See the module docstring. Raises in ``__init__``, before anything is changed, where the policy does not fit.

    With ``prefixes``, :meth:`call_sharing` makes pipeline calls that share what they begin with.
    """

    def __init__(self, pipe: Any, policy: Policy, *, strict: bool, prefixes: PrefixCache | None = None) -> None:
        self.pipe = pipe
        self.policy = policy
        self.family = family_of(pipe)
        denoiser: nn.Module = self.family.denoiser(pipe)
        check_compatible(pipe, policy, strict=strict)
        structure = find_units(denoiser)
        self.plain_scheduler = pipe.scheduler
        self.scheduler, _ = solver_under(policy, pipe, pipe.scheduler)
        if policy.model is not None:
            # Whether another size fits shows when it is asked for, before the first denoising step.
            full = latents_of(pipe, policy.model.height, policy.model.width)
            compile_plan(policy, structure, full.height, full.width)
        self._prefixes = prefixes
        if prefixes is not None:
            prefixes.serve(root_of(denoiser))
        self._hooks = HookSet(denoiser, structure, policy)
        self.session = Session(self._hooks, conditional_first=self.family.conditional_first)
        # The scheduler's own methods by name.
        self._unhooked: dict[str, Any] = {}
        self._replaced = Replacements()
        denoising = self._denoising = Denoising(
            pipe,
            self.family,
            policy,
            structure,
            self.scheduler,
            self._unhooked,
            self._hooks,
            self._attach_hooks,
            self.session,
        )
        self._denoiser_hook = CallHook(denoising.evaluate)

    def install(self) -> None:
        if self.scheduler is not self.plain_scheduler:
            self.pipe.scheduler = self.scheduler
        replace = self._replaced.add
        replace(self.scheduler, "set_timesteps", self._set_timesteps, accepts=("timesteps", "sigmas", "mu"))
        replace(self.scheduler, "step", self._denoising.step)
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
                replace(self.scheduler, name, methods[name])
            if hasattr(self.pipe, "prepare_mask_latents"):
                replace(self.pipe, "prepare_mask_latents", self._prepare_mask)
        methods = {
            "prepare_latents": self._prepare_latents,
            "get_timesteps": self._get_timesteps,
            "progress_bar": self._progress_bar,
            "maybe_free_model_hooks": self._end_call,
            "save_pretrained": self._save_pretrained,
        }
        for name, method in methods.items():
            if hasattr(self.pipe, name):
                replace(self.pipe, name, method)
        self._attach_hooks()
        self.pipe.__deepcopy__ = self._deepcopy

    def uninstall(self) -> None:
        self.session.end()
        self._replaced.undo()
        self._denoiser_hook.detach()
        self._hooks.leave()
        if "__deepcopy__" in vars(self.pipe):
            del self.pipe.__deepcopy__
        if self.pipe.scheduler is self.scheduler and self.scheduler is not self.plain_scheduler:
            self.pipe.scheduler = self.plain_scheduler

    def call_sharing(self, *args: Any, **kwargs: Any) -> Any:
        """Call the pipeline; see :func:`autotune.runtime.apply.applied_sharing`."""
        assert self._prefixes is not None
        shared = shared_call(self._prefixes, args, kwargs)
        self.session.renew(shared=shared)
        try:
            output = self.pipe(*args, **kwargs)
        finally:
            self.session.renew()
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

    def _attach_hooks(self) -> None:
        """Put every hook where it belongs, also after the denoiser was compiled, offloaded or given LoRA layers."""
        denoiser = self.family.denoiser(self.pipe)
        if root_of(denoiser) is not root_of(self._hooks.denoiser):
            raise InputError(
                f"the pipeline's {type(root_of(denoiser)).__name__} was replaced after apply_policy: call"
                " remove_policy(pipe), then apply a policy made for it"
            )
        self._denoiser_hook.attach(denoiser)
        self._hooks.attach(denoiser)

    # Replaced methods

    def _set_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """The policy's steps instead of the caller's, who may only leave the default or ask for the same."""
        before = self.session.call
        call = self.session.renew(prepared=before.prepared, shared=before.shared)
        self._attach_hooks()
        bound, extra = _bind(original, args, kwargs)
        arguments = arguments_for(self.policy, self.pipe, self.scheduler, bound, extra)
        original(**arguments)
        call.calls = calls_per_step(self.scheduler, self.policy.steps, len(self.scheduler.timesteps))
        if call.shared is not None:
            call.setting = setting_of(self.scheduler, arguments)

    def _get_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Image-to-image: how many of the policy's steps are left at this strength."""
        bound = inspect.signature(original).bind(*args, **kwargs)
        bound.arguments["num_inference_steps"] = self.policy.steps
        result = original(*bound.args, **bound.kwargs)
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
        if total is not None:
            total = self.policy.steps if self.session.call.start == 0 else min(total, self.policy.steps)
        return original(iterable=iterable, total=total)

    def _end_call(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """What pipelines do last: a call that was interrupted leaves nothing behind either."""
        self.session.end()
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
        since_step = self.session.call.since_step
        since_step.raw, since_step.timestep = sample, bound.arguments.get("timestep")
        scaled: Tensor = original(sample, *args, **kwargs)
        return scaled

    def _noise(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Note what noise is added to; inpainting does it after every step, to its surroundings."""
        noised = Noised.of(inspect.signature(original).bind(*args, **kwargs).arguments)
        call = self.session.call
        if call.plan is None:
            call.prepared.noised = noised
        elif call.low is not None and call.prepared.mask is not None:
            call.low.inpaint(noised, call.prepared.mask)
        result: Tensor = original(*args, **kwargs)
        return result


def _bind(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments by name: those ``method`` takes, and those it does not."""
    parameters = inspect.signature(method).parameters
    known = {key: value for key, value in kwargs.items() if key in parameters}
    bound = inspect.signature(method).bind_partial(*args, **known)
    return dict(bound.arguments), {key: value for key, value in kwargs.items() if key not in parameters}
