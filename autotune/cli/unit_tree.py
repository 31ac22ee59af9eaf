"""A denoiser's units as a tree for people: what each is part of, what it costs, alike ones in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

_NUMBERED = re.compile(r"(?P<stem>.+)\.(?P<index>\d+)")
_REST = "elsewhere in it"
_MEBIBYTE = 2**20
# No line of the tree comes near this; the table around it decides what is cut.
_TREE_WIDTH = 200


@dataclass(frozen=True)
class Node:
    """A unit, a U-Net block or the denoiser itself.

    Attributes:
        name: relative to what it is a part of.
        kind: its role; empty for work outside of units.
        flops: of one, with everything inside it.
        kept_bytes: of one copy of its output; None where there is none to keep.
        parts: in order of execution.
        alike: how many of these stand one after the other.
    """

    name: str
    kind: str
    flops: int
    kept_bytes: int | None
    parts: tuple[Node, ...] = ()
    alike: int = 1

    def with_rest(self, name: str = _REST) -> Node:
        """With a last part for the work that none of the parts does, everywhere below."""
        if not self.parts:
            return self
        parts = tuple(part.with_rest() for part in self.parts)
        rest = self.flops - sum(part.flops for part in parts)
        return replace(self, parts=(*parts, Node(name, "", rest, None)) if rest else parts)

    def folded(self) -> Node:
        """With consecutively numbered parts that differ in nothing but the number in one, everywhere below."""
        folded: list[Node] = []
        # Where the run of each stem that may still grow is, and which number would come next.
        runs: dict[str, tuple[int, int, int]] = {}
        for part in (part.folded() for part in self.parts):
            match = _NUMBERED.fullmatch(part.name)
            if match is None:
                folded.append(part)
                continue
            stem, number = match["stem"], int(match["index"])
            place, first, expected = runs.get(stem, (-1, number, number))
            if place >= 0 and number == expected and part == replace(folded[place], name=part.name, alike=1):
                folded[place] = replace(folded[place], name=f"{stem}.{first}-{number}", alike=number - first + 1)
                runs[stem] = (place, first, number + 1)
            else:
                folded.append(part)
                runs[stem] = (len(folded) - 1, number, number + 1)
        return replace(self, parts=tuple(folded))

    def cut(self, depth: int) -> Node:
        """Without what is more than ``depth`` levels down."""
        return replace(self, parts=tuple(part.cut(depth - 1) for part in self.parts) if depth else ())


@dataclass(frozen=True)
class UnitTree:
    """A node and what is inside it, with figures in columns beside the tree."""

    root: Node

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line per node."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("unit", no_wrap=True)
        table.add_column("kind", no_wrap=True)
        for heading in ("FLOPs", "each", "kept, MiB"):
            table.add_column(heading, justify="right", no_wrap=True)
        rows: list[tuple[str, str, str, str]] = []
        tree = self._grow(self.root, 1, rows)
        lines = console.render_lines(tree, options.update(width=_TREE_WIDTH), pad=False)
        for line, row in zip(lines, rows, strict=True):
            table.add_row(Text("".join(segment.text for segment in line)), *row)
        yield table

    def _grow(self, node: Node, copies: int, rows: list[tuple[str, str, str, str]]) -> Tree:
        copies *= node.alike
        each = node.flops / self.root.flops
        kept = "" if node.kept_bytes is None else f"{node.kept_bytes / _MEBIBYTE:,.3f}"
        rows.append((node.kind, f"{each * copies:.2%}", f"{each:.2%}" if copies > 1 else "", kept))
        tree = Tree(Text(node.name))
        for part in node.parts:
            tree.children.append(self._grow(part, copies, rows))
        return tree


def nest(name: str, flops: int, entries: Sequence[Node]) -> Node:
    """The tree of ``entries``, which have full names and come after their parts, under a root of that name."""
    inside: dict[str, list[Node]] = {}
    known = {entry.name for entry in entries}
    top: list[Node] = []
    for entry in entries:
        parent = entry.name
        while "." in parent:
            parent = parent.rpartition(".")[0]
            if parent in known:
                break
        else:
            parent = ""
        relative = entry.name[len(parent) + 1 if parent else 0 :]
        made = replace(entry, name=relative, parts=tuple(inside.pop(entry.name, ())))
        (inside.setdefault(parent, []) if parent else top).append(made)
    return Node(name, "denoiser", flops, None, tuple(top))
