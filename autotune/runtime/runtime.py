"""The policies on one pipeline: the hooks, which of them a call follows, and how to take everything back.

Every policy has an :class:`~autotune.runtime.execution.Execution`. A call decides for one of them when it begins, and
holds on to it until it ends; there is nothing that a decision would have to undo. What makes that cheap is that the
hooks of all policies are on the denoiser at once (:class:`~autotune.runtime.hook_set.HookSet`): those that a policy
does not use rest in its calls, as all of them do in a full run. To exchange hooks instead would change what
compiled modules call, and have them compiled again.

Calls of one pipeline take turns, whatever they follow: a pipeline has state while it runs. Other
pipelines may share denoiser and scheduler. So methods are replaced while a call of this very
pipeline lasts; hooks stay on the denoiser, for compiled code must not change, and rest in between.
"""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from torch import nn

from autotune.core.errors import InputError, did_you_mean
from autotune.core.naming import FULL_TIER
from autotune.pipelines.families import family_of
from autotune.pipelines.units import find_units
from autotune.plan import compile_plan, resolve_rules
from autotune.policy import Policy
from autotune.runtime.entry import Entry
from autotune.runtime.execution import Execution, bind
from autotune.runtime.hook_set import HookSet
from autotune.runtime.hooks import CallHook
from autotune.runtime.models import check_compatible, default_steps, latents_of, root_of
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.runtime.prefix.sharing import shared_call
from autotune.runtime.session import Session
from autotune.runtime.tiers import choosing, chosen
from autotune.runtime.timesteps import solver_under

ATTRIBUTE = "_postdiff_runtime"
# What a caller may say of the steps of a full run.
_STEPS = ("num_inference_steps", "timesteps", "sigmas")
# Whose hooks are on a denoiser. Both are held by their pipelines, and here by nobody.
_HOLDERS: WeakKeyDictionary[nn.Module, ReferenceType[Runtime]] = WeakKeyDictionary()


class Runtime:
    """See the module docstring. Raises in ``__init__``, before anything is changed, where a policy does not fit.

    With ``prefixes``, :meth:`call_sharing` makes pipeline calls that share what they begin with.

    Args:
        pipe: the pipeline.
        policies: by the names of their tiers.
        default: the tier of calls for which none is chosen.
        strict: see :func:`autotune.apply_policy`.
        prefixes: what calls share.
    """

    def __init__(
        self,
        pipe: Any,
        policies: Mapping[str, Policy],
        default: str,
        *,
        strict: bool,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self.pipe = pipe
        self._policies = dict(policies)
        self._default = default
        self.family = family_of(pipe)
        self.check_tier(default)
        denoiser: nn.Module = self.family.denoiser(pipe)
        for name, policy in policies.items():
            with self._named(name):
                check_compatible(pipe, policy, strict=strict)
        structure = find_units(denoiser)
        self.plain_scheduler = pipe.scheduler
        solvers = []
        for name, policy in policies.items():
            with self._named(name):
                solvers.append(solver_under(policy, pipe, pipe.scheduler)[0])
                resolve_rules(policy, structure)
                if policy.model is not None:
                    # Whether another size fits shows when it is asked for, before the first denoising step.
                    full = latents_of(pipe, policy.model.height, policy.model.width)
                    compile_plan(policy, structure, full.height, full.width)
        self._prefixes = prefixes
        if prefixes is not None:
            prefixes.serve(root_of(denoiser))
        self._hooks = HookSet(denoiser, structure, policies.values())
        self._executions = {
            name: Execution(pipe, self.family, policy, structure, solver, hooks, self._attach_hooks)
            for (name, policy), solver, hooks in zip(policies.items(), solvers, self._hooks.shares, strict=True)
        }
        self._denoiser_hook = CallHook(self._evaluate)
        self._entry = Entry(pipe, self._call, self._deepcopy)
        # Of the thread whose call it is, which may call the pipeline again from a callback.
        self._turn = threading.RLock()
        self._calling = False
        self._thread = 0
        # What the call in progress follows; None in a full run, and between calls.
        self._running: Execution | None = None
        # Whose hooks were on the denoiser before these.
        self._displaced: Runtime | None = None
        self._key = object()

    def install(self) -> None:
        self._attach_hooks()
        self._entry.install()

    def uninstall(self) -> None:
        with self._turn:
            self._end()
            self._detach_hooks()
            self._entry.uninstall()

    @property
    def execution(self) -> Execution | None:
        """What this thread's call in progress follows or, between calls, one from here would; None in a full run."""
        if self._calling and self._thread == threading.get_ident():
            return self._running
        return self._executions.get(chosen(self._key) or self._default)

    @property
    def session(self) -> Session | None:
        """That of :attr:`execution`."""
        return None if self.execution is None else self.execution.session

    @property
    def scheduler(self) -> Any:
        """The one that a call from here would run under."""
        return self.plain_scheduler if self.execution is None else self.execution.scheduler

    def tier(self, name: str) -> AbstractContextManager[None]:
        """See :func:`autotune.tier`."""
        self.check_tier(name)
        return choosing(self._key, name)

    def check_tier(self, name: str) -> None:
        """Refuse a tier that there is not.

        Raises:
            InputError: in a sentence that names those that there are.
        """
        if name not in self._policies and name != FULL_TIER:
            hint = did_you_mean(str(name), [*self._policies, FULL_TIER])
            raise InputError(f"the pipeline has no tier {name!r}{hint}")

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Say of which of several tiers a refusal is."""
        try:
            yield
        except InputError as error:
            if len(self._policies) == 1:
                raise
            raise type(error)(f"tier {name!r}: {error}") from None

    def _call(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One call of this very pipeline: what is replaced for a policy's sake is replaced while it lasts."""
        with self._turn:
            if self._calling:
                return original(*args, **kwargs)
            execution, given = self.execution, bind(original, args, kwargs)[0]
            if execution is not None:
                self._check_call(given)
            self._calling, self._thread, self._running = True, threading.get_ident(), execution
            try:
                if execution is None:
                    return original(*args, **self._with_full_steps(original, given, kwargs))
                execution.begin(given)
                args, kwargs = execution.with_steps(original, args, kwargs)
                return original(*args, **execution.with_callbacks(kwargs))
            finally:
                self._end()

    def _with_full_steps(
        self, original: Callable[..., Any], given: Mapping[str, Any], kwargs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Arguments of a full run: where the caller leaves its steps open, those that policies are compared with."""
        takes = inspect.signature(original).parameters
        if _STEPS[0] not in takes or any(given.get(name) is not None for name in _STEPS):
            return kwargs
        return {**kwargs, _STEPS[0]: self._full_steps}

    @functools.cached_property
    def _full_steps(self) -> int:
        models = [policy.model for policy in self._policies.values() if policy.model is not None]
        return models[0].full_steps if models else default_steps(self.pipe)

    def _check_call(self, arguments: Mapping[str, Any]) -> None:
        """Refuse a call that no policy can follow, or not one that was made for another scheduler.

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

    def _end(self) -> None:
        """Leave everything but the denoiser's hooks, which rest, as it was before the call."""
        running = self._running
        if running is not None:
            running.end()
            if self.pipe.scheduler is running.scheduler:
                vars(self.pipe)["scheduler"] = self.plain_scheduler
        self._calling, self._running = False, None
        displaced, self._displaced = self._displaced, None
        if displaced is not None and displaced._calling:
            displaced._attach_hooks()

    def call_sharing(self, *args: Any, **kwargs: Any) -> Any:
        """Call the pipeline; see :func:`autotune.runtime.apply.applied_sharing`."""
        assert self._prefixes is not None and self.session is not None
        session, shared = self.session, shared_call(self._prefixes, args, kwargs)
        session.renew(shared=shared)
        try:
            output = self.pipe(*args, **kwargs)
        finally:
            session.renew()
        if shared is not None:
            shared.end()
        return output

    def _evaluate(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of the denoiser, whosever it is."""
        return forward(*args, **kwargs) if self._running is None else self._running.evaluate(forward, args, kwargs)

    def _attach_hooks(self) -> None:
        """Put every hook where it belongs, also after the denoiser was compiled, offloaded or given LoRA layers.

        A denoiser has the hooks of one pipeline at a time, that whose call was the last to begin.
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

    def _deepcopy(self, memo: dict[int, Any]) -> Any:
        """A copy runs under the same policies, with hooks of its own; none of its tiers is chosen yet."""
        with self._turn:
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
            runtime = Runtime(clone, self._policies, self._default, strict=False)
            runtime.install()
            setattr(clone, ATTRIBUTE, runtime)
            return clone


def _holder_of(root: nn.Module) -> Runtime | None:
    holder = _HOLDERS.get(root)
    return None if holder is None else holder()
