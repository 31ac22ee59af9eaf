"""Prefix reuse: pipeline calls that begin alike share what they have in common, bit for bit.

Searches make the same pictures under many policies. Where a call has the same arguments as an earlier one, the same
solver and timesteps, and a plan that does the same in its first calls of the denoiser, it does not compute these
again: the pipeline runs its loop as ever, but for so many calls the denoiser is not run, and then everything that a
later call could depend on is put in place as the earlier run left it.

Which states are kept was chosen by ``studies/prefix_reuse.py``, which prints what else could be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from autotune.plan import Plan
from autotune.runtime.branches import Difference
from autotune.runtime.lowres import LowResolution
from autotune.runtime.prefix.checkpoints import Checkpoint, PrefixCache, Use
from autotune.runtime.prefix.keys import Feature, features_read, prefix_keys
from autotune.runtime.snapshot import (
    NotPlainError,
    canonical_form,
    cloned,
    digest,
    emptied,
    restore_scheduler,
    scheduler_state,
)


class Resumable(Protocol):
    """Where denoising stands, such as :class:`autotune.runtime.session.Session`."""

    @property
    def position(self) -> int:
        """How many calls of the denoiser are done."""

    @property
    def features(self) -> Mapping[tuple[int, int, int], tuple[int, Any]]:
        """Kept results by (branch, unit, call), with the rows they were computed for."""

    @property
    def shapes(self) -> Mapping[int, Any]:
        """What is known of the shapes of units' outputs."""

    @property
    def difference(self) -> Difference | None:
        """Of guidance's branches, where the next call is to reuse it."""

    def resume(
        self,
        calls: int,
        features: Mapping[tuple[int, int, int], tuple[int, Any]],
        shapes: Mapping[int, Any],
        difference: Difference | None,
    ) -> None:
        """Stand where another call stood after so many calls."""


class Remembering(Protocol):
    """What has a state of its own between steps, such as :class:`autotune.runtime.guiders.Guiders`."""

    def state(self) -> dict[str, Any]:
        """A copy of it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""


class SharedCall:
    """One pipeline call that goes on from a checkpoint and leaves some.

    Attributes:
        output: the denoiser's last output in this call.
    """

    def __init__(self, cache: PrefixCache, identity: str, generators: tuple[torch.Generator, ...]) -> None:
        self.output: Any = None
        self._cache = cache
        self._identity = identity
        self._generators = generators
        self._setting: str | None = None
        self._plan: Plan | None = None
        self._keys: tuple[str, ...] = ()

    def begin(self, setting: str | None, pictures: int, policy: str, device: torch.device) -> bool:
        """At the first denoiser call. False where the call is not to be shared.

        Args:
            setting: what decides the scheduler's steps, see :func:`setting_of`; None where that cannot be told.
            pictures: for the record.
            policy: for the record.
            device: whose global generator nothing may be drawn from.
        """
        if self._setting is not None or setting is None:
            return False  # of a pipeline that denoises twice in a call, only the first time
        self._setting, self._device = setting, device
        self._random = self._global_states()
        self._use = Use(policy, pictures, 0, 0)
        return True

    @property
    def guided(self) -> bool | None:
        """Whether the same call was guided before; None where that is not known."""
        return self._cache.guided.get(self._identity)

    def find(self, plan: Plan) -> Checkpoint | None:
        """From where the call can go on under ``plan``."""
        self._follow(plan)
        # After the last call there would be nothing to go on with.
        found = self._cache.find(self._identity, self._keys[1:-1], plan)
        if found is not None:
            self._use = replace(self._use, skipped=found.calls)
        return found

    def take_on(
        self,
        checkpoint: Checkpoint,
        scheduler: Any,
        guiders: Remembering,
        session: Resumable,
        low: LowResolution | None,
    ) -> None:
        """Put everything in place as it was after the checkpoint's calls."""
        assert self._plan is not None
        restore_scheduler(scheduler, checkpoint.scheduler)
        guiders.restore(checkpoint.guiders)
        for generator, state in zip(self._generators, checkpoint.generators, strict=True):
            generator.set_state(state.clone())
        if low is not None and checkpoint.low is not None:
            latents, low.size = checkpoint.low
            low.latents = latents.clone()
        read = {(unit, call) for unit, call, _ in features_read(self._plan, checkpoint.calls)}
        features = {
            (branch, unit, call): kept
            for (unit, call, _), rows in checkpoint.features.items()
            if (unit, call) in read
            for branch, kept in rows.items()
        }
        # What another call holds for itself would be no part of this one's price.
        difference = checkpoint.difference if self._plan.reuses_difference(checkpoint.calls) else None
        session.resume(checkpoint.calls, features, checkpoint.shapes, difference)

    def leave(
        self,
        plan: Plan,
        result: Any,
        scheduler: Any,
        guiders: Remembering,
        session: Resumable,
        low: LowResolution | None,
        *,
        guided: bool,
    ) -> None:
        """After a step that is not the last: keep all that the next one depends on, where that can be had."""
        self._follow(plan)
        self._cache.guided[self._identity] = guided
        calls = session.position
        # A call that drew from a global generator depends on more than its arguments.
        if not is_kept(calls) or not all(map(torch.equal, self._random, self._global_states())):
            return
        try:
            state, remembered = scheduler_state(scheduler), guiders.state()
        except NotPlainError:
            return
        features: dict[Feature, dict[int, tuple[int, Any]]] = {}
        for (branch, unit, call), kept in session.features.items():
            features.setdefault((unit, call, plan.residuals.get(unit)), {})[branch] = kept
        checkpoint = Checkpoint(
            calls=calls,
            result=cloned(result),
            output=emptied(self.output),
            scheduler=state,
            guiders=remembered,
            generators=tuple(generator.get_state() for generator in self._generators),
            low=None if low is None else (low.latents.clone(), low.size),
            features=features,
            shapes=session.shapes,
            difference=session.difference,
        )
        self._cache.add(self._identity, self._keys[calls], checkpoint)

    def end(self) -> None:
        """The pipeline call returned."""
        if self._plan is not None:
            self._cache.uses.append(replace(self._use, calls=len(self._plan.steps)))

    def _follow(self, plan: Plan) -> None:
        if plan is not self._plan:
            assert self._setting is not None
            self._plan, self._keys = plan, prefix_keys(plan, self._setting)

    def _global_states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self._device.type != "cpu":
            states.append(torch.get_device_module(self._device).get_rng_state(self._device))
        return states


def shared_call(cache: PrefixCache, args: Sequence[Any], kwargs: Mapping[str, Any]) -> SharedCall | None:
    """A pipeline call with these arguments, or None where they do not say exactly what it will compute.

    They do when they are numbers, strings, generators and collections of these, with a generator among them.
    """
    generators = tuple(_generators((args, kwargs)))
    try:
        identity = digest(canonical_form((list(args), dict(kwargs)), arrays=False))
    except NotPlainError:
        return None
    return SharedCall(cache, identity, generators) if generators else None


def is_kept(calls: int) -> bool:
    """Whether a state is kept after so many calls: densely at first, where most policies part, then every third."""
    return calls <= 2 or calls % 3 == 0


def setting_of(scheduler: Any, arguments: Mapping[str, Any], guiders: str = "") -> str | None:
    """What decides a call's steps after ``scheduler.set_timesteps(**arguments)``; None where that cannot be told.

    Args:
        guiders: what tells those of the pipeline from others.
    """
    levels = {name: getattr(scheduler, name, None) for name in ("timesteps", "sigmas", "num_inference_steps")}
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    try:
        return canonical_form((type(scheduler).__name__, config, dict(arguments), levels, guiders), arrays=True)
    except NotPlainError:
        return None


def _generators(value: Any) -> Iterator[torch.Generator]:
    if isinstance(value, torch.Generator):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _generators(item)
    elif isinstance(value, Mapping):
        yield from _generators(list(value.values()))
