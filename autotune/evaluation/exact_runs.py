"""Exact runs: the pictures that a policy's are compared with in pairs, made when they are needed and kept."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from autotune.evaluation.intent import is_exact
from autotune.evaluation.tensor_files import read_tensors
from autotune.policy import Policy
from autotune.quality.tensors import write_tensors

Make = Callable[[Policy, int], Generator[Tensor, None, None]]
"""Makes a policy's pictures of the first so many inputs, in batches (n, 3, H, W) uint8."""


class ExactRuns:
    """The first pictures of exact runs, one run for all policies of an intent.

    Workers that share the folder share them. Two that need the same one at the same moment both make it, and either's
    file is whole.

    Args:
        folder: Keeps a file for every run. It must belong to these inputs and seeds alone.
        make: Makes the pictures.
        count: How many of the first inputs are compared in pairs; 0 compares none.
        full: The full run's policy.
        intent: The exact run's policy of a policy, see :func:`autotune.evaluation.intent.exact_policy`.
    """

    def __init__(self, folder: Path, make: Make, count: int, full: Policy, intent: Callable[[Policy], Policy]) -> None:
        self.count = count
        self._folder = folder
        self._make = make
        self._full = full
        self._intent = intent
        self._made: list[tuple[Policy, int]] = []
        # Candidates come in any order, but neighbours mostly share an intent.
        self._last: tuple[str, Tensor] | None = None

    def of(self, policy: Policy) -> Tensor | None:
        """Pictures (count, 3, H, W) uint8 of the exact run of a policy's intent; None where it is exact itself."""
        if not self.count or is_exact(policy, self._full):
            return None
        exact = self._intent(policy)
        if self._last is None or self._last[0] != exact.key:
            pictures = self._kept(exact)
            self._last = exact.key, self._new(exact) if pictures is None else pictures
        return self._last[1]

    def keep(self, policy: Policy, pictures: Tensor) -> None:
        """Spare an exact run that a policy's own first pictures (n, 3, H, W) are."""
        if self.count and len(pictures) >= self.count and self._intent(policy).key == policy.key:
            path = self._path(policy)
            if not path.is_file():
                self._write(path, pictures[: self.count])

    def take_made(self) -> list[tuple[Policy, int]]:
        """Runs made since this was last asked, and how many pictures of each."""
        made, self._made = self._made, []
        return made

    def _new(self, exact: Policy) -> Tensor:
        with closing(self._make(exact, self.count)) as batches:
            parts: list[Tensor] = []
            for batch in batches:
                parts.append(batch)
                if sum(map(len, parts)) >= self.count:
                    break
        self._made.append((exact, sum(map(len, parts))))
        pictures = torch.cat(parts)[: self.count]
        self._write(self._path(exact), pictures)
        return pictures

    def _kept(self, exact: Policy) -> Tensor | None:
        path = self._path(exact)
        if not path.is_file():
            return None
        pictures = read_tensors(path)["pictures"]
        # An earlier run may have compared fewer.
        return pictures[: self.count] if len(pictures) >= self.count else None

    def _write(self, path: Path, pictures: Tensor) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, {"pictures": pictures.clone()}, {})

    def _path(self, exact: Policy) -> Path:
        return self._folder / f"{exact.key}.safetensors"
