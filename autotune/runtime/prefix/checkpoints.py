"""States of pipeline calls amid denoising, within a bound on memory; see :mod:`autotune.runtime.prefix.sharing`."""

from __future__ import annotations

import weakref
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autotune.core.errors import InputError
from autotune.pipelines.families import LatentSize
from autotune.plan import Plan
from autotune.runtime.branches import Difference
from autotune.runtime.prefix.keys import Feature, features_read, shapes_read


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
        guiders: what the pipeline's guiders remember.
        generators: states of the generators the pipeline was called with.
        low: the latents while they are smaller than the pipeline believes, and their size.
        features: kept results, one for each branch that computed them, with the rows they were computed for.
        shapes: of units' outputs, as hooks note them.
        difference: of guidance's branches, where the call was to reuse it next; not copied either.
    """

    calls: int
    result: Any
    output: Any
    scheduler: Mapping[str, Any]
    guiders: Mapping[str, Any]
    generators: tuple[Tensor, ...]
    low: tuple[Tensor, LatentSize] | None
    features: Mapping[Feature, Mapping[int, tuple[int, Any]]]
    shapes: Mapping[int, Any]
    difference: Difference | None = None

    def serves(self, plan: Plan) -> bool:
        """Whether it holds all that ``plan`` takes from the calls before."""
        if plan.reuses_difference(self.calls) and self.difference is None:
            return False
        return features_read(plan, self.calls) <= self.features.keys() and shapes_read(plan, self.calls).issubset(
            self.shapes
        )

    def merged(self, other: Checkpoint) -> Checkpoint:
        """This one with what another of the same calls holds besides."""
        return replace(
            self,
            features={**other.features, **self.features},
            shapes={**other.shapes, **self.shapes},
            difference=self.difference or other.difference,
        )

    def storages(self) -> Counter[tuple[int, int]]:
        """Address and bytes of the memory it holds on to; features are not copied, and shared between checkpoints."""
        low = None if self.low is None else self.low[0]
        held = (self.result, self.output, dict(self.scheduler), dict(self.guiders), self.generators, low)
        features = [output for rows in self.features.values() for _, output in rows.values()]
        difference = None if self.difference is None else self.difference.values
        tensors = [leaf for leaf in tree_leaves((held, features, difference)) if isinstance(leaf, Tensor)]
        return Counter({(s.data_ptr(), s.nbytes()) for s in (tensor.untyped_storage() for tensor in tensors)})


class PrefixCache:
    """Checkpoints of pipeline calls, of one denoiser whose weights do not change.

    Searches make the same calls in rounds, on which forgetting what was used least recently fails altogether once
    a round does not fit. Therefore the call that holds most gives way first, with what it used least recently.

    Args:
        max_bytes: of all tensors held, exceeded at no time but while one checkpoint is being added.

    Attributes:
        guided: of calls seen, whether they have an unconditional branch.
        uses: see :meth:`take_uses`.

    Raises:
        InputError: ``max_bytes`` is not positive.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise InputError(f"max_bytes is {max_bytes}; give a positive number of bytes")
        self.max_bytes = max_bytes
        self._shelves: dict[str, _Shelf] = {}
        self.guided: dict[str, bool] = {}
        self.uses: list[Use] = []
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
        self.guided.clear()

    def take_uses(self) -> list[Use]:
        """The calls since this was last asked, oldest first."""
        uses, self.uses = self.uses, []
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

    def find(self, call: str, keys: Sequence[str], plan: Plan) -> Checkpoint | None:
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

    def add(self, call: str, key: str, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint of a call, or what it adds to the one with the same key, and make room for it."""
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
