"""Prefix reuse: pipeline calls that begin alike share what they have in common, bit for bit.

Searches make the same pictures under many policies. Where a call has the same arguments as an earlier one, the same
solver and timesteps, and a plan that does the same in its first calls of the denoiser, it does not compute these
again: the pipeline runs its loop as ever, but for so many calls the denoiser is not run, and then everything that a
later call could depend on is put in place as the earlier run left it.

Which states are kept was chosen by ``studies/prefix_reuse.py``, which prints what else could be.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from autotune.errors import InputError
from autotune.families import LatentSize
from autotune.plan import Plan
from autotune.runtime.prefix import Feature, features_read, prefix_keys, shapes_read

# Not state: how the scheduler was configured, which its key holds.
_CONFIG = "_internal_dict"


class _NotPlain(Exception):
    """A value that cannot be copied or told from others exactly."""


@dataclass(frozen=True)
class Use:
    """A pipeline call that may have shared a prefix.

    Attributes:
        policy: key of the policy it ran under.
        pictures: rows of latents, one a picture.
        calls: calls of the denoiser in the plan.
        skipped: how many of them, the first ones, were not computed.
    """

    policy: str
    pictures: int
    calls: int
    skipped: int


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that later calls of the denoiser depend on, after the first ``calls``.

    Attributes:
        result: of the scheduler's last step.
        output: of the denoiser's last call, its values aside.
        scheduler: the scheduler's attributes.
        generators: states of the generators the pipeline was called with.
        low: the latents while they are smaller than the pipeline believes, and their size.
        features: kept results, one for each branch that computed them, with the rows they were computed for.
        shapes: of units' outputs, as hooks note them.
    """

    calls: int
    result: Any
    output: Any
    scheduler: Mapping[str, Any]
    generators: tuple[Tensor, ...]
    low: tuple[Tensor, LatentSize] | None
    features: Mapping[Feature, Mapping[int, tuple[int, Any]]]
    shapes: Mapping[int, Any]

    def serves(self, plan: Plan) -> bool:
        """Whether it holds all that ``plan`` takes from the calls before."""
        return features_read(plan, self.calls) <= self.features.keys() and shapes_read(plan, self.calls).issubset(
            self.shapes
        )

    def merged(self, other: Checkpoint) -> Checkpoint:
        """This one with what another of the same calls holds besides."""
        return replace(self, features={**other.features, **self.features}, shapes={**other.shapes, **self.shapes})

    def storages(self) -> Counter[tuple[int, int]]:
        """Address and bytes of the memory it holds on to; features are not copied, and shared between checkpoints."""
        low = None if self.low is None else self.low[0]
        held = (self.result, self.output, dict(self.scheduler), self.generators, low)
        features = [output for rows in self.features.values() for _, output in rows.values()]
        tensors = [leaf for leaf in tree_leaves((held, features)) if isinstance(leaf, Tensor)]
        return Counter({(s.data_ptr(), s.nbytes()) for s in (tensor.untyped_storage() for tensor in tensors)})


class PrefixCache:
    """Checkpoints of pipeline calls, of one denoiser whose weights do not change.

    Searches make the same calls in rounds, on which forgetting what was used least recently fails altogether once
    a round does not fit. Therefore the call that holds most gives way first, with what it used least recently.

    Args:
        max_bytes: of all tensors held, exceeded at no time but while one checkpoint is being added.

    Raises:
        InputError: ``max_bytes`` is not positive.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise InputError(f"max_bytes is {max_bytes}; give a positive number of bytes")
        self.max_bytes = max_bytes
        self._shelves: dict[str, _Shelf] = {}
        self._guided: dict[str, bool] = {}
        self._uses: list[Use] = []
        self._denoiser: weakref.ref[nn.Module] | None = None

    @property
    def bytes(self) -> int:
        """Memory held now."""
        return sum(shelf.bytes for shelf in self._shelves.values())

    def __len__(self) -> int:
        return sum(len(shelf.checkpoints) for shelf in self._shelves.values())

    def clear(self) -> None:
        """Forget every checkpoint, as is due when weights have changed."""
        self._shelves.clear()
        self._guided.clear()

    def take_uses(self) -> list[Use]:
        """The calls since this was last asked, oldest first."""
        uses, self._uses = self._uses, []
        return uses

    def serve(self, denoiser: nn.Module) -> None:
        """Note whose calls these are.

        Raises:
            InputError: they are another denoiser's already.
        """
        if self._denoiser is None:
            self._denoiser = weakref.ref(denoiser)
        elif self._denoiser() is not denoiser:
            raise InputError("this PrefixCache holds calls of another pipeline: make one for each pipeline")

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> SharedCall | None:
        """A pipeline call with these arguments, or None where they do not say exactly what it will compute.

        They do when they are numbers, strings, generators and collections of these, with a generator among them.
        """
        generators = list(_generators((args, kwargs)))
        try:
            told = _told((list(args), dict(kwargs)), arrays=False)
        except _NotPlain:
            return None
        return SharedCall(self, _digest(told), tuple(generators)) if generators else None

    def _find(self, call: str, keys: Sequence[str], plan: Plan) -> Checkpoint | None:
        """The checkpoint that goes furthest. All on the way to it count as used, those furthest on as longest ago."""
        shelf = self._shelves.get(call)
        if shelf is None:
            return None
        found = None
        for key in reversed(keys):
            if key in shelf.checkpoints:
                shelf.checkpoints.move_to_end(key)
                if found is None and shelf.checkpoints[key].serves(plan):
                    found = shelf.checkpoints[key]
        return found

    def _add(self, call: str, key: str, checkpoint: Checkpoint) -> None:
        self._shelves.setdefault(call, _Shelf()).put(key, checkpoint)
        while self.bytes > self.max_bytes:
            largest = max(self._shelves.values(), key=lambda shelf: shelf.bytes)
            largest.drop_oldest()


@dataclass
class _Shelf:
    """Checkpoints of one pipeline call; memory that several hold on to counts once."""

    checkpoints: OrderedDict[str, Checkpoint] = field(default_factory=OrderedDict)
    bytes: int = 0
    _holders: Counter[tuple[int, int]] = field(default_factory=Counter)

    def put(self, key: str, checkpoint: Checkpoint) -> None:
        known = self.checkpoints.pop(key, None)
        if known is not None:
            checkpoint = known.merged(checkpoint)
        self._hold(checkpoint)
        if known is not None:
            self._release(known)
        self.checkpoints[key] = checkpoint

    def drop_oldest(self) -> None:
        _, checkpoint = self.checkpoints.popitem(last=False)
        self._release(checkpoint)

    def _hold(self, checkpoint: Checkpoint) -> None:
        for storage in checkpoint.storages():
            self.bytes += 0 if self._holders[storage] else storage[1]
            self._holders[storage] += 1

    def _release(self, checkpoint: Checkpoint) -> None:
        for storage in checkpoint.storages():
            self._holders[storage] -= 1
            if not self._holders[storage]:
                del self._holders[storage]
                self.bytes -= storage[1]


class SharedCall:
    """One pipeline call that goes on from a checkpoint and leaves some; made by :meth:`PrefixCache.call`.

    Attributes:
        generators: those the pipeline is called with.
        output: the denoiser's last output in this call.
    """

    def __init__(self, cache: PrefixCache, identity: str, generators: tuple[torch.Generator, ...]) -> None:
        self.generators = generators
        self.output: Any = None
        self._cache = cache
        self._identity = identity
        self._setting: str | None = None
        self._random: list[Tensor] = []
        self._plan: Plan | None = None
        self._keys: tuple[str, ...] = ()
        self._use: Use | None = None

    def begin(self, setting: str | None, pictures: int, policy: str, device: torch.device) -> bool:
        """At the first denoiser call. False where this is not the only denoising in the pipeline call.

        Args:
            setting: what decides the scheduler's steps, see :func:`setting_of`.
            pictures: for the record.
            policy: for the record.
            device: whose global generator nothing may be drawn from.
        """
        if self._setting is not None or setting is None:
            return False
        self._setting, self._device = setting, device
        self._random = self._global_states()
        self._use = Use(policy, pictures, 0, 0)
        return True

    def guided(self) -> bool | None:
        """Whether the same call was guided before; None where that is not known."""
        return self._cache._guided.get(self._identity)

    def find(self, plan: Plan) -> Checkpoint | None:
        """From where the call can go on under ``plan``."""
        self._follow(plan)
        # After the last call there would be nothing to go on with.
        found = self._cache._find(self._identity, self._keys[1:-1], plan)
        if found is not None and self._use is not None:
            self._use = replace(self._use, skipped=found.calls)
        return found

    def wants(self, plan: Plan, calls: int, *, guided: bool) -> bool:
        """Whether to leave a checkpoint after so many calls."""
        self._follow(plan)
        self._cache._guided[self._identity] = guided
        return is_kept(calls)

    def add(self, checkpoint: Checkpoint) -> None:
        # A call that drew from a global generator depends on more than its arguments.
        if all(map(torch.equal, self._random, self._global_states())):
            self._cache._add(self._identity, self._keys[checkpoint.calls], checkpoint)

    def end(self) -> None:
        """The pipeline call returned."""
        if self._use is not None and self._plan is not None:
            self._cache._uses.append(replace(self._use, calls=len(self._plan.steps)))

    def _follow(self, plan: Plan) -> None:
        if plan is not self._plan:
            assert self._setting is not None
            self._plan, self._keys = plan, prefix_keys(plan, self._setting)

    def _global_states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self._device.type != "cpu":
            states.append(torch.get_device_module(self._device).get_rng_state(self._device))
        return states


def is_kept(calls: int) -> bool:
    """Whether a state is kept after so many calls: densely at first, where most policies part, then every third."""
    return calls <= 2 or calls % 3 == 0


def setting_of(scheduler: Any, arguments: Mapping[str, Any]) -> str | None:
    """What decides a scheduler's steps after ``set_timesteps(**arguments)``; None where that cannot be told."""
    levels = {name: getattr(scheduler, name, None) for name in ("timesteps", "sigmas", "num_inference_steps")}
    try:
        config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
        return _told((type(scheduler).__name__, config, dict(arguments), levels), arrays=True)
    except _NotPlain:
        return None


def scheduler_state(scheduler: Any) -> dict[str, Any] | None:
    """A copy of all attributes but config and methods; None where one cannot be copied exactly."""
    try:
        return {name: _copied(value) for name, value in vars(scheduler).items() if _is_state(name, value)}
    except _NotPlain:
        return None


def restore_scheduler(scheduler: Any, state: Mapping[str, Any]) -> None:
    """The inverse of :func:`scheduler_state`."""
    own = vars(scheduler)
    for name in [name for name, value in own.items() if _is_state(name, value) and name not in state]:
        del own[name]
    own.update({name: _copied(value) for name, value in state.items()})


def cloned(tree: Any) -> Any:
    """A copy whose tensors nobody else holds."""
    return tree_map_only(Tensor, torch.clone, tree)


def emptied(tree: Any) -> Any:
    """The same with zeros that take no memory for tensors."""
    return tree_map_only(Tensor, lambda tensor: tensor.new_zeros(()).expand(tensor.shape), tree)


def filled(tree: Any) -> Any:
    """What :func:`emptied` gave, with memory of its own."""
    return tree_map_only(Tensor, lambda tensor: tensor.contiguous(), tree)


def _is_state(name: str, value: Any) -> bool:
    return name != _CONFIG and not callable(value)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str | np.generic | torch.device | torch.dtype):
        return value
    raise _NotPlain


def _told(value: Any, *, arrays: bool) -> str:
    """Text that differs where values do."""
    if isinstance(value, list | tuple):
        return f"[{','.join(_told(item, arrays=arrays) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key!r}:{_told(value[key], arrays=arrays)}' for key in sorted(value))}}}"
    if isinstance(value, torch.Generator):
        return f"generator {value.device} {_digest(value.get_state().numpy().tobytes())}"
    if arrays and isinstance(value, Tensor):
        content = value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype}{tuple(value.shape)} {_digest(content)}"
    if arrays and isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype}{value.shape} {_digest(value.tobytes())}"
    if value is None or isinstance(value, bool | int | float | str | torch.device | torch.dtype):
        return repr(value)
    raise _NotPlain


def _generators(value: Any) -> Iterator[torch.Generator]:
    if isinstance(value, torch.Generator):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _generators(item)
    elif isinstance(value, dict):
        yield from _generators(list(value.values()))


def _digest(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
