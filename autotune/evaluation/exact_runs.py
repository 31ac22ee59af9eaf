"""Exact runs: the pictures that a policy's are compared with in pairs, made as far as they are needed, and kept."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from autotune.evaluation.intent import is_exact
from autotune.evaluation.tensor_files import read_tensors
from autotune.policy import Policy
from autotune.quality.tensors import write_tensors

Pictures = Generator[Tensor, None, None]
"""Pictures (n, 3, H, W) uint8 in batches. Closing it early takes the policy off the pipeline."""

Make = Callable[[Policy, int, int], Pictures]
"""Makes a policy's pictures of the inputs from one to another, the latter not included."""

LOOKS = (8, 16, 32)
"""How many pictures a candidate has made when it is first asked whether more are worth it."""


def parts(count: int, made: int = 0) -> list[tuple[int, int]]:
    """The parts in which ``count`` pictures are made, first and last of each: up to every look, then the rest.

    As pictures depend in the last bits on what is made at the same time, all that are compared are made alike.

    Args:
        count: Pictures in all.
        made: How many of them there are already.

    Example:
        >>> parts(256)
        [(0, 8), (8, 16), (16, 32), (32, 256)]
        >>> parts(12)  # Too few for looks to tell anything.
        [(0, 12)]
    """
    looks = LOOKS if count >= LOOKS[-1] else ()
    ends = [0, *(look for look in looks if look < count), count]
    return [(max(first, made), last) for first, last in pairwise(ends) if last > made]


def pairs(made: int, count: int, most: int) -> int:
    """How many of the first pictures are compared with the exact run's where ``made`` of ``count`` are there.

    Up to the last look as many as the first look has, for most candidates end there and exact runs are dear; beyond it
    all that are compared at most.

    Args:
        made: Pictures made so far, a look or more.
        count: Pictures in all.
        most: Pairs at most.

    Example:
        >>> [pairs(made, 128, 32) for made in (8, 16, 32, 64, 128)]
        [8, 8, 8, 32, 32]
        >>> pairs(12, 12, 12)  # Too few for looks to tell anything.
        12
    """
    return min(most, LOOKS[0]) if made <= LOOKS[-1] and made < count else min(most, made)


class ExactRuns:
    """The first pictures of exact runs, one run for all policies of an intent.

    Workers that share the folder share them. Two that need the same one at the same moment both make it, and either's
    file is whole.

    Args:
        folder: Keeps a file for every run. It must belong to these inputs and seeds alone.
        make: Makes the pictures.
        count: How many of the first inputs are compared in pairs at most; 0 compares none.
        inputs: How many there are, which says in what parts pictures are made.
        full: The full run's policy.
        intent: The exact run's policy of a policy, see :func:`autotune.evaluation.intent.exact_policy`.
    """

    def __init__(
        self, folder: Path, make: Make, count: int, inputs: int, full: Policy, intent: Callable[[Policy], Policy]
    ) -> None:
        self.count = count
        self._inputs = inputs
        self._folder = folder
        self._make = make
        self._full = full
        self._intent = intent
        self._made: dict[str, tuple[Policy, int]] = {}
        # Candidates come in any order, but neighbours mostly share an intent.
        self._last: tuple[str, Tensor] | None = None

    def of(self, policy: Policy, count: int) -> Tensor | None:
        """Pictures (count, 3, H, W) uint8 of the exact run of a policy's intent; None where it is exact itself.

        Those of them that are not there yet are made.
        """
        if not self.count or is_exact(policy, self._full):
            return None
        exact = self._intent(policy)
        if self._last is None or self._last[0] != exact.key or len(self._last[1]) < count:
            pictures = self._kept(exact)
            if len(pictures) < count:
                pictures = self._more(exact, pictures, count)
            self._last = exact.key, pictures
        return self._last[1][:count]

    def keep(self, policy: Policy, pictures: Tensor) -> None:
        """Spare an exact run that a policy's own first pictures (n, 3, H, W) are."""
        pictures = pictures[: self.count]
        if len(pictures) and self._intent(policy).key == policy.key and len(self._kept(policy)) < len(pictures):
            self._write(self._path(policy), pictures)

    def take_made(self) -> list[tuple[Policy, int]]:
        """Runs made since this was last asked, and how many pictures of each."""
        made, self._made = self._made, {}
        return list(made.values())

    def _more(self, exact: Policy, made: Tensor, count: int) -> Tensor:
        found = [made] if len(made) else []
        for first, last in parts(self._inputs, len(made)):
            if first < count:
                with closing(self._make(exact, first, min(last, self.count))) as batches:
                    found.extend(batches)
        pictures = torch.cat(found)
        before = self._made.get(exact.key, (exact, 0))[1]
        self._made[exact.key] = exact, before + len(pictures) - len(made)
        meanwhile = self._kept(exact)
        if len(meanwhile) > len(pictures):
            return meanwhile
        self._write(self._path(exact), pictures)
        return pictures

    def _kept(self, exact: Policy) -> Tensor:
        """As many pictures as are there, ``count`` of them at most."""
        path = self._path(exact)
        if not path.is_file():
            return torch.empty(0, dtype=torch.uint8)
        return read_tensors(path)["pictures"][: self.count]

    def _write(self, path: Path, pictures: Tensor) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {"pictures": pictures.clone()}, {})

    def _path(self, exact: Policy) -> Path:
        return self._folder / f"{exact.key}.safetensors"
