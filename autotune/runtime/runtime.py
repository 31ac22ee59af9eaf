"""One policy on one pipeline: the hooks, the replaced methods and how to take them back.

Four choke points exist in every pipeline and suffice: the scheduler's ``set_timesteps`` (how many
steps), its ``step`` (clock, hand-off between resolutions), the denoiser's forward (units, guidance,
sample) and ``prepare_latents`` (how many pictures). All changes are made to instances, never to
classes, and can be taken back. What belongs to one call of the pipeline is in ``session.call``.

Other pipelines may share denoiser and scheduler. So methods are replaced while a call of this very
pipeline lasts; hooks stay on the denoiser, for compiled code must not change, and rest in between.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.families import family_of
from autotune.pipelines.units import find_units
from autotune.plan import compile_plan
from autotune.policy import Policy
from autotune.runtime.branches import row_count
from autotune.runtime.call import Part, Prepared
from autotune.runtime.denoising import Denoising
from autotune.runtime.entry import Entry
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
_CALLBACKS = ("callback_on_step_end", "callback")
# Whose hooks are on a denoiser. Both are held by their pipelines, and here by nobody.
_HOLDERS: WeakKeyDictionary[nn.Module, ReferenceType[Runtime]] = WeakKeyDictionary()


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
        self._entry = Entry(pipe, self._call, self._deepcopy)
        self._running = False
        # Whose hooks were on the denoiser before these.
        self._displaced: Runtime | None = None

    def install(self) -> None:
        self._attach_hooks()
        self._entry.install()

    def uninstall(self) -> None:
        self._end()
        self._detach_hooks()
        self._entry.uninstall()

    def _call(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One call of this very pipeline: what is replaced for the policy's sake is replaced while it lasts."""
        if self._running:
            return original(*args, **kwargs)
        self._begin(_bind(original, args, kwargs)[0])
        try:
            return original(*args, **self._with_callbacks(kwargs))
        finally:
            self._end()

    def _with_callbacks(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
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

    def _begin(self, arguments: Mapping[str, Any]) -> None:
        """Take hold of the scheduler and of the pipeline's own methods.

        Args:
            arguments: of the call.

        Raises:
            InputError: the scheduler was replaced after ``apply_policy``, or no policy can follow an argument.
        """
        for name, reason in self.family.refused_arguments.items():
            if arguments.get(name) is not None:
                raise InputError(
                    f"{type(self.pipe).__name__} runs under no policy with {name}, for {reason}: leave {name} out, or"
                    " call remove_policy(pipe)"
                )
        if self.pipe.scheduler is not self.plain_scheduler:
            raise InputError(
                f"the scheduler was replaced by a {type(self.pipe.scheduler).__name__} after apply_policy: call"
                " remove_policy(pipe), then apply a policy made for it"
            )
        latents = arguments.get("latents")
        prepared = Prepared(
            # Some image-to-image pipelines prepare none where they are given.
            batch=len(latents) // self.family.latent_rows if isinstance(latents, Tensor) else None,
            part=Part(arguments.get("denoising_start"), arguments.get("denoising_end")),
        )
        self.session.renew(prepared=prepared, shared=self.session.call.shared)
        self._running = True
        # Past __setattr__, which records components in the config.
        vars(self.pipe)["scheduler"] = self.scheduler
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
            if hasattr(self.pipe, "prepare_mask_latents"):
                replace(self.pipe, "prepare_mask_latents", self._prepare_mask)
        methods = {
            "prepare_latents": self._prepare_latents,
            "get_timesteps": self._get_timesteps,
            "progress_bar": self._progress_bar,
        }
        for name, method in methods.items():
            if hasattr(self.pipe, name):
                replace(self.pipe, name, method)

    def _end(self) -> None:
        """Leave everything but the denoiser's hooks, which rest, as it was before the call."""
        self.session.end()
        self._replaced.undo()
        self._unhooked.clear()
        if self._running and self.pipe.scheduler is self.scheduler:
            vars(self.pipe)["scheduler"] = self.plain_scheduler
        self._running = False
        displaced, self._displaced = self._displaced, None
        if displaced is not None and displaced._running:
            displaced._attach_hooks()

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

    def _attach_hooks(self) -> None:
        """Put every hook where it belongs, also after the denoiser was compiled, offloaded or given LoRA layers.

        A denoiser has the hooks of one policy at a time, that of the pipeline whose call was the last to begin.
        """
        denoiser = self.family.denoiser(self.pipe)
        root = root_of(denoiser)
        if root is not root_of(self._hooks.denoiser):
            raise InputError(
                f"the pipeline's {type(root).__name__} was replaced after apply_policy: call"
                " remove_policy(pipe), then apply a policy made for it"
            )
        holder = _holder_of(root)
        if holder is not None and holder is not self:
            holder._detach_hooks()
            self._displaced = holder
        _HOLDERS[root] = ref(self)
        self._denoiser_hook.attach(denoiser)
        self._hooks.attach(denoiser)

    def _detach_hooks(self) -> None:
        root = root_of(self._hooks.denoiser)
        if _holder_of(root) is self:
            del _HOLDERS[root]
            self._denoiser_hook.detach()
            self._hooks.leave()

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

    def _deepcopy(self, memo: dict[int, Any]) -> Any:
        """A copy runs under the same policy, with hooks of its own."""
        holder = _holder_of(root_of(self._hooks.denoiser))
        self.uninstall()
        if holder is not None:
            holder._detach_hooks()
        delattr(self.pipe, ATTRIBUTE)
        try:
            clone = copy.deepcopy(self.pipe, memo)
        finally:
            setattr(self.pipe, ATTRIBUTE, self)
            self.install()
            if holder is not None:
                holder._attach_hooks()
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


def _holder_of(root: nn.Module) -> Runtime | None:
    holder = _HOLDERS.get(root)
    return None if holder is None else holder()


def _bind(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments by name: those ``method`` takes, and those it does not."""
    parameters = inspect.signature(method).parameters
    known = {key: value for key, value in kwargs.items() if key in parameters}
    bound = inspect.signature(method).bind_partial(*args, **known)
    return dict(bound.arguments), {key: value for key, value in kwargs.items() if key not in parameters}
