"""A denoiser as data: its units in order of execution and who reads whose output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from autotune.errors import PolicyError, did_you_mean


@dataclass(frozen=True)
class Unit:
    """The smallest part of a denoiser whose output can be reused.

    ``name`` is the module's path in the denoiser, ``kind`` its role (``resnet``, ``attention``,
    ``downsampler``, ...), ``reads`` the indices of the units whose outputs it consumes.
    """

    name: str
    kind: str
    reads: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """A module that holds units and can be stepped over whole when none of them computes.

    ``outputs`` are the indices of the units whose outputs the block returns besides its
    last one (the skip connections of a U-Net's down block); None where it returns only that.
    """

    name: str
    units: tuple[int, ...]
    outputs: tuple[int, ...] | None = None

    @property
    def last(self) -> int:
        return self.units[-1]


@dataclass(frozen=True)
class Structure:
    """Units in order of execution; the last one gives the denoiser's output.

    ``size_multiple`` is what height and width of the latents must be divisible by.
    """

    units: tuple[Unit, ...]
    blocks: tuple[Block, ...]
    size_multiple: int

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Where each name a policy may use points: a unit to itself, a block to its last unit."""
        names = {block.name: block.last for block in self.blocks}
        return names | {unit.name: index for index, unit in enumerate(self.units)}

    def resolve(self, names: Iterable[str]) -> frozenset[int]:
        """Indices of the units that ``names`` (units or blocks) stand for.

        Raises:
            PolicyError: a name the denoiser does not have.
        """
        found = set()
        for name in names:
            if name not in self.index_of:
                raise PolicyError(f"the denoiser has no unit {name!r}{did_you_mean(name, self.index_of)}")
            found.add(self.index_of[name])
        return frozenset(found)

    def needed(self, reused: frozenset[int]) -> frozenset[int]:
        """The units whose output something reads when those in ``reused`` need no input.

        Walks back from the denoiser's output: a reused unit is read but reads nothing, so
        what feeds only reused units is not needed.
        """
        needed = {len(self.units) - 1}
        for index in reversed(range(len(self.units))):
            if index in needed and index not in reused:
                needed.update(self.units[index].reads)
        return frozenset(needed)


class StructureBuilder:
    """Collects units in order of execution."""

    def __init__(self) -> None:
        self._units: list[Unit] = []
        self._blocks: list[Block] = []

    def unit(self, name: str, kind: str, reads: Sequence[int]) -> int:
        """Add a unit and return its index."""
        self._units.append(Unit(name, kind, tuple(reads)))
        return len(self._units) - 1

    def block(self, name: str, units: Sequence[int], outputs: Sequence[int] | None = None) -> None:
        self._blocks.append(Block(name, tuple(units), None if outputs is None else tuple(outputs)))

    def build(self, size_multiple: int) -> Structure:
        return Structure(tuple(self._units), tuple(self._blocks), size_multiple)
