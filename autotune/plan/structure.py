"""A denoiser as data: its units in order of completion and who reads whose output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autotune.core.errors import PolicyError, did_you_mean

_RANGE = re.compile(r"(?P<stem>.+)\.(?P<first>\d+)-(?P<last>\d+)")


@dataclass(frozen=True)
class Unit:
    """The smallest part of a denoiser whose output can be reused.

    Attributes:
        name: the module's path in the denoiser.
        kind: its role: ``resnet``, ``block``, ``self-attention``, ``feed-forward``, ...
        reads: indices of the units whose outputs it consumes: those it takes as input and those inside it.
        inputs: of ``reads``, the units its residual streams come from; empty where they come from none.
        streams: names of the forward arguments that its outputs replace one by one, in the order of
            the outputs; empty where output minus input has no meaning.
        opaque: the class of a module that is not known, and is computed or reused as a whole; empty for all others.
    """

    name: str
    kind: str
    reads: tuple[int, ...]
    inputs: tuple[int, ...] = ()
    streams: tuple[str, ...] = ()
    opaque: str = ""


@dataclass(frozen=True)
class Block:
    """A U-Net's module that holds units and can be stepped over whole when none of them computes.

    ``outputs`` are the indices of the units whose outputs the block returns besides its
    last one (the skip connections of a U-Net's down block); None where it returns only that.
    """

    name: str
    units: tuple[int, ...]
    outputs: tuple[int, ...] | None = None

    @property
    def last(self) -> int:
        return self.units[-1]


@dataclass(frozen=True, eq=False)
class Structure:
    """Units in order of completion: a unit's parts come before it. Compared by identity.

    ``size_multiple`` is what height and width of the latents must be divisible by; ``root`` the
    unit that gives the denoiser's output.
    """

    units: tuple[Unit, ...]
    blocks: tuple[Block, ...]
    size_multiple: int
    root: int

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Where each name a policy may use points: a unit to itself, a block to its last unit."""
        names = {block.name: block.last for block in self.blocks}
        return names | {unit.name: index for index, unit in enumerate(self.units)}

    def resolve(self, names: Iterable[str]) -> dict[int, int]:
        """The units that ``names`` stand for, each with the first block of its range.

        A name is a unit, a block, a range of blocks (``transformer_blocks.3-10``: its last one, from
        its first on) or a pattern in which ``*`` stands for one part of a name and ``**`` for any
        number (``**.attn2``). Outside of ranges a unit's first block is itself.

        Raises:
            PolicyError: a name or pattern that nothing in the denoiser has.
        """
        found: dict[int, int] = {}
        for name in names:
            if "*" in name:
                pattern = _pattern(name)
                matches = [index for index, unit in enumerate(self.units) if pattern.fullmatch(unit.name)]
                if not matches:
                    raise PolicyError(f"the denoiser has no unit that fits {name!r}; it has {self._examples()}")
                found |= {index: index for index in matches}
            elif match := _RANGE.fullmatch(name):
                first, last = (self._index(f"{match['stem']}.{match[end]}") for end in ("first", "last"))
                found[last] = first
            else:
                index = self._index(name)
                found[index] = index
        return found

    def of_kind(self, kind: str) -> list[int]:
        return [index for index, unit in enumerate(self.units) if unit.kind == kind]

    def needed(self, taken: Mapping[int, Sequence[int]]) -> frozenset[int]:
        """The units whose output something reads when those in ``taken`` are not computed.

        Walks back from the denoiser's output: a unit that is taken from memory reads only the
        units given with it (none, or where its residual is added to), so what feeds only such
        units is not needed.
        """
        needed = {self.root}
        for index in reversed(range(len(self.units))):
            if index in needed:
                needed.update(taken[index] if index in taken else self.units[index].reads)
        return frozenset(needed)

    @cached_property
    def parents(self) -> tuple[int | None, ...]:
        """For every unit the innermost unit it is a part of."""
        by_name = {unit.name: index for index, unit in enumerate(self.units)}

        def parent(name: str) -> int | None:
            while "." in name:
                name = name.rpartition(".")[0]
                if name in by_name:
                    return by_name[name]
            return None

        return tuple(parent(unit.name) for unit in self.units)

    def _index(self, name: str) -> int:
        if name not in self.index_of:
            close = did_you_mean(name, self.index_of)
            # Without a close one it would list hundreds.
            raise PolicyError(
                f"the denoiser has no unit {name!r}{close if '?' in close else f'; it has {self._examples()}'}"
            )
        return self.index_of[name]

    def _examples(self) -> str:
        names = [unit.name for unit in self.units]
        return ", ".join(dict.fromkeys((names[0], names[len(names) // 2], names[-1])))


class StructureBuilder:
    """Collects units in order of completion."""

    def __init__(self) -> None:
        self._units: list[Unit] = []
        self._blocks: list[Block] = []

    def unit(
        self,
        name: str,
        kind: str,
        reads: Sequence[int],
        *,
        inputs: Sequence[int] = (),
        streams: Sequence[str] = (),
        opaque: str = "",
    ) -> int:
        """Add a unit and return its index."""
        self._units.append(Unit(name, kind, tuple(reads), tuple(inputs), tuple(streams), opaque))
        return len(self._units) - 1

    def block(self, name: str, units: Sequence[int], outputs: Sequence[int] | None = None) -> None:
        self._blocks.append(Block(name, tuple(units), None if outputs is None else tuple(outputs)))

    def build(self, size_multiple: int, root: int | None = None) -> Structure:
        """``root`` is the unit that gives the denoiser's output, by default the last one."""
        last = len(self._units) - 1
        return Structure(tuple(self._units), tuple(self._blocks), size_multiple, last if root is None else root)


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", name)
    wild = {"**": r".+", "*": r"[^.]+"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))
