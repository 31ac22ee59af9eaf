"""``apply_policy`` and its exact inverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from autotune.core.errors import InputError
from autotune.core.naming import FULL_TIER
from autotune.policy import Policy, PolicySet
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.runtime.runtime import ATTRIBUTE, Runtime
from autotune.runtime.session import Session

P = TypeVar("P")
# The name of an only policy's tier.
_ONLY = "policy"


def apply_policy(pipe: P, policy: Policy, *, strict: bool = True) -> P:
    """Make ``pipe`` run under ``policy``, in place, until :func:`remove_policy`.

    Afterwards ``pipe("a prompt")`` takes the policy's steps; neither its classes nor its
    weights are touched. Calls may differ in batch size, height and width.

    Args:
        strict: refuse a model or scheduler whose config differs from the one the policy was
            made for, and a stock pipeline that is not among the tested ones. False accepts other
            configs of the same classes, and any pipeline: check its pictures yourself.

    Raises:
        PolicyError: the policy does not fit the pipeline.
        InputError: the pipeline is not supported or not tested, or already runs under a policy.

    Example:
        >>> pipe = autotune.apply_policy(autotune.demo_pipeline(), autotune.Policy(steps=8))
        >>> pipe("fluent red apple").images[0].size
        (64, 64)
    """
    _install(pipe, {_ONLY: policy}, _ONLY, strict)
    return pipe


def apply_policies(
    pipe: P, tiers: PolicySet | Mapping[str, Policy], default: str = FULL_TIER, *, strict: bool = True
) -> P:
    """Make ``pipe`` run under one of several policies, in place, until :func:`remove_policy`.

    Which one, each call decides: by :func:`tier`, else it is ``default``. The tier ``"full"`` always exists: the
    plain pipeline, with the steps of the full run where the call names none. To choose takes microseconds, and
    compiled code compiles nothing again when a tier comes back.

    Calls take turns, from whatever threads they come.

    Args:
        pipe: the pipeline.
        tiers: policies by name, as :func:`autotune.load_policies` gives them.
        default: the tier of calls for which none is chosen.
        strict: see :func:`apply_policy`.

    Raises:
        PolicyError: a policy does not fit the pipeline; the sentence names its tier.
        InputError: there are no tiers or they have unusable names, ``default`` is none of them, or as
            :func:`apply_policy`.

    Example:
        >>> tiers = {"high": autotune.Policy(steps=12), "draft": autotune.Policy(steps=5)}
        >>> pipe = autotune.apply_policies(autotune.demo_pipeline(), tiers, default="high")
        >>> with autotune.tier(pipe, "draft"):
        ...     image = pipe("fluent red apple").images[0]
    """
    _install(pipe, PolicySet.of(tiers).tiers, default, strict)
    return pipe


def tier(pipe: Any, name: str) -> AbstractContextManager[None]:
    """Choose the tier of the pipeline's calls inside of a ``with`` block.

    The choice is a context variable: threads and asyncio tasks do not see each other's. One that is made in a task
    holds in what it awaits and in ``asyncio.to_thread``, and not in a thread pool's threads. A call in progress keeps
    the tier it began with.

    Args:
        pipe: a pipeline under policies.
        name: of one of its tiers, or ``"full"``.

    Raises:
        InputError: the pipeline runs under no policy, or has no such tier.

    Example:
        >>> pipe = autotune.apply_policies(autotune.demo_pipeline(), {"draft": autotune.Policy(steps=5)})
        >>> with autotune.tier(pipe, "draft"):
        ...     image = pipe("fluent red apple").images[0]
    """
    runtime = _runtime(pipe)
    if runtime is None:
        raise InputError("this pipeline runs under no policies: call apply_policies(pipe, tiers) first")
    return runtime.tier(name)


def remove_policy(pipe: P) -> P:
    """Take the policy, or all tiers, off again; the pipeline then computes bit for bit what it did before.

    Raises:
        InputError: the pipeline runs under no policy.

    Example:
        >>> pipe = autotune.apply_policy(autotune.demo_pipeline(), autotune.Policy(steps=8))
        >>> pipe = autotune.remove_policy(pipe)
    """
    runtime = _runtime(pipe)
    if runtime is None:
        raise InputError("this pipeline runs under no policy: there is nothing to remove")
    runtime.uninstall()
    delattr(pipe, ATTRIBUTE)
    return pipe


@contextmanager
def applied(pipe: P, policy: Policy, *, strict: bool = True) -> Iterator[P]:
    """Run under the policy inside a ``with`` block only; see :func:`apply_policy`.

    Example:
        >>> pipe = autotune.demo_pipeline()
        >>> with autotune.applied(pipe, autotune.Policy(steps=8)):
        ...     image = pipe("fluent red apple").images[0]
    """
    apply_policy(pipe, policy, strict=strict)
    try:
        yield pipe
    finally:
        remove_policy(pipe)


@contextmanager
def applied_sharing(pipe: Any, policy: Policy, prefixes: PrefixCache) -> Iterator[Callable[..., Any]]:
    """As :func:`applied`; what is yielded is called in the pipeline's place and shares prefixes with earlier calls.

    It returns what the pipeline returns, bit for bit. Shared are calls with a generator whose other arguments are
    numbers, strings and collections of these: any picture, latents or callback, and the call is made plainly. The
    denoiser must be deterministic, and neither weights nor pipeline may change while ``prefixes`` is in use.

    Raises:
        InputError: as :func:`apply_policy`, or ``prefixes`` are of another pipeline.

    Example:
        >>> pipe, policy = autotune.demo_pipeline(), autotune.Policy(steps=8)
        >>> with applied_sharing(pipe, policy, PrefixCache(2**30)) as call:
        ...     image = call("fluent red apple").images[0]
    """
    runtime = _install(pipe, {_ONLY: policy}, _ONLY, True, prefixes)
    try:
        yield runtime.call_sharing
    finally:
        remove_policy(pipe)


def check_unapplied(pipe: Any) -> None:
    """Refuse a pipeline that runs under a policy.

    Raises:
        InputError: it does.
    """
    if runs_under_policies(pipe):
        raise InputError("this pipeline already runs under a policy: call remove_policy(pipe) first")


def runs_under_policies(pipe: Any) -> bool:
    """Whether the pipeline's calls may run under a policy."""
    return hasattr(pipe, ATTRIBUTE)


def session_of(pipe: Any) -> Session | None:
    """The session of a call under a policy, in progress or made from here (for tests and tools); None in full runs."""
    runtime = _runtime(pipe)
    return None if runtime is None else runtime.session


def scheduler_under(pipe: Any) -> Any:
    """The scheduler that calls of the pipeline from here run under: the policy's, or else the pipeline's own."""
    runtime = _runtime(pipe)
    return pipe.scheduler if runtime is None else runtime.scheduler


def plain_scheduler(pipe: Any) -> Any:
    """The pipeline's own scheduler, also from inside of a call under a policy that puts another in its place."""
    runtime = _runtime(pipe)
    return pipe.scheduler if runtime is None else runtime.plain_scheduler


def _runtime(pipe: Any) -> Runtime | None:
    runtime: Runtime | None = getattr(pipe, ATTRIBUTE, None)
    return runtime


def _install(
    pipe: Any, policies: Mapping[str, Policy], default: str, strict: bool, prefixes: PrefixCache | None = None
) -> Runtime:
    check_unapplied(pipe)
    runtime = Runtime(pipe, policies, default, strict=strict, prefixes=prefixes)
    runtime.install()
    setattr(pipe, ATTRIBUTE, runtime)
    return runtime
