"""``apply_policy`` and its exact inverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from autotune.core.errors import InputError
from autotune.policy import Policy
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.runtime.runtime import ATTRIBUTE, Runtime
from autotune.runtime.session import Session

P = TypeVar("P")


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
    _install(pipe, policy, strict, None)
    return pipe


def remove_policy(pipe: P) -> P:
    """Take the policy off again; the pipeline then computes bit for bit what it did before.

    Raises:
        InputError: the pipeline runs under no policy.

    Example:
        >>> pipe = autotune.apply_policy(autotune.demo_pipeline(), autotune.Policy(steps=8))
        >>> pipe = autotune.remove_policy(pipe)
    """
    runtime: Runtime | None = getattr(pipe, ATTRIBUTE, None)
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
    runtime = _install(pipe, policy, True, prefixes)
    try:
        yield runtime.call_sharing
    finally:
        remove_policy(pipe)


def check_unapplied(pipe: Any) -> None:
    """Refuse a pipeline that runs under a policy.

    Raises:
        InputError: it does.
    """
    if hasattr(pipe, ATTRIBUTE):
        raise InputError("this pipeline already runs under a policy: call remove_policy(pipe) first")


def session_of(pipe: Any) -> Session | None:
    """The session of a pipeline under a policy (for tests and tools), or None."""
    runtime: Runtime | None = getattr(pipe, ATTRIBUTE, None)
    return None if runtime is None else runtime.session


def scheduler_under(pipe: Any) -> Any:
    """The scheduler that calls of the pipeline run under: the policy's, or else the pipeline's own."""
    runtime: Runtime | None = getattr(pipe, ATTRIBUTE, None)
    return pipe.scheduler if runtime is None else runtime.scheduler


def plain_scheduler(pipe: Any) -> Any:
    """The pipeline's own scheduler, also from inside of a call under a policy that puts another in its place."""
    runtime: Runtime | None = getattr(pipe, ATTRIBUTE, None)
    return pipe.scheduler if runtime is None else runtime.plain_scheduler


def _install(pipe: Any, policy: Policy, strict: bool, prefixes: PrefixCache | None) -> Runtime:
    check_unapplied(pipe)
    runtime = Runtime(pipe, policy, strict=strict, prefixes=prefixes)
    runtime.install()
    setattr(pipe, ATTRIBUTE, runtime)
    return runtime
