"""``postdiff describe``: what a pipeline consists of, and what each part of its denoiser costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.cli.models import DType, ModelSource
from autotune.cli.supported import guidance_of
from autotune.cli.unit_tree import Node, UnitTree, nest
from autotune.core.errors import InputError
from autotune.core.faults import during
from autotune.cost import Pricer
from autotune.pipelines.families import family_of
from autotune.pipelines.units.transformer import ARCHITECTURES
from autotune.runtime.models import denoiser_of, latents_of, native_size, root_of
from autotune.runtime.schedulers import check_scheduler

# Columns where the output is no terminal.
_WIDTH = 100
_OUTSIDE = "elsewhere"
_GUIDANCE = {
    "batched": "both branches batched in one call of the denoiser",
    "separate": "each branch in a call of its own, where the pipeline is told to guide",
    "none": "none",
}
_LEGEND = (
    "FLOPs: share of the denoiser's, together with the units inside it; each: of one unit, where a line holds several."
    " Kept: size of one output for one sample, which is what reusing it keeps; guidance has two samples a picture."
)


@dataclass(frozen=True)
class UnitCost:
    """A unit in one call of the denoiser for one sample.

    Attributes:
        name: its path in the denoiser.
        kind: its role.
        part_of: the innermost unit it is inside of.
        opaque: the class of a module that is not known here and is one unit as a whole; empty for all others.
        flops: with the units inside it.
        own_flops: without them.
        macs_conv_linear: multiply-adds of convolutions and linear layers, with the units inside it.
        share: ``flops`` as a share of the denoiser's.
        kept_bytes: size of its output.
    """

    name: str
    kind: str
    part_of: str | None
    opaque: str
    flops: int
    own_flops: int
    macs_conv_linear: int
    share: float
    kept_bytes: int


@dataclass(frozen=True)
class BlockOfUnits:
    """A U-Net's block, which is not a unit itself: its name stands for the last unit in it."""

    name: str
    units: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """A pipeline and one call of its denoiser for one sample.

    Attributes:
        scheduler_note: why policies do not support the scheduler, or None.
        guidance: how the pipeline computes the branches of classifier-free guidance: batched, separate or none.
        native_size, size: height and width in pixels.
        latents: height and width, and frames of a video.
        known: whether the denoiser's class is one whose units are listed, not guessed.
        flops: of the denoiser.
        elsewhere_flops: of what is in no unit: embeddings, the last projection and the like.
    """

    pipeline: str
    denoiser: str
    scheduler: str
    scheduler_note: str | None
    guidance: str
    native_size: tuple[int, int]
    size: tuple[int, int]
    latents: tuple[int, ...]
    text_tokens: int
    parameters: int
    dtype: str
    known: bool
    flops: int
    macs_conv_linear: int
    elsewhere_flops: int
    units: tuple[UnitCost, ...]
    blocks: tuple[BlockOfUnits, ...]

    @property
    def tree(self) -> Node:
        """The units, with U-Net blocks around those that are in one."""
        index = {unit.name: position for position, unit in enumerate(self.units)}
        # A block comes right after its last unit.
        ordered = [(float(index[unit.name]), _node(unit)) for unit in self.units]
        for block in self.blocks:
            units = [self.units[index[name]] for name in block.units]
            flops = sum(unit.own_flops for unit in units)
            ordered.append((index[block.units[-1]] + 0.5, Node(block.name, "block", flops, units[-1].kept_bytes)))
        entries = [node for _, node in sorted(ordered, key=lambda entry: entry[0])]
        return nest(self.denoiser, self.flops, entries).with_rest(_OUTSIDE)


def _node(unit: UnitCost) -> Node:
    return Node(unit.name, unit.kind, unit.flops, unit.kept_bytes)


def describe(pipe: Any, height: int | None = None, width: int | None = None) -> Description:
    """Describe a pipeline for pictures of a size, by default the model's own.

    Raises:
        InputError: the pipeline is not supported, or not at this size.
    """
    pricer = Pricer(pipe, height, width)
    structure = pricer.structure
    table = pricer.table(pricer.height, pricer.width)
    denoiser = root_of(denoiser_of(pipe))
    native = native_size(pipe)
    latents = latents_of(pipe, height, width)
    first = next(denoiser.parameters())
    try:
        check_scheduler(pipe.scheduler)
        scheduler_note = None
    except InputError as error:
        scheduler_note = str(error)

    # A unit comes after its parts, so that each is complete when it is added to what it is a part of.
    total = list(table.units)
    for position, parent in enumerate(structure.parents):
        if parent is not None:
            total[parent] = total[parent] + total[position]
    units = tuple(
        UnitCost(
            name=unit.name,
            kind=unit.kind,
            opaque=unit.opaque,
            part_of=None if parent is None else structure.units[parent].name,
            flops=work.flops,
            own_flops=own.flops,
            macs_conv_linear=work.macs_conv_linear,
            share=work.flops / table.total.flops,
            kept_bytes=elements * first.element_size(),
        )
        for unit, parent, work, own, elements in zip(
            structure.units, structure.parents, total, table.units, table.elements, strict=True
        )
    )
    return Description(
        pipeline=type(pipe).__name__,
        denoiser=type(denoiser).__name__,
        scheduler=type(pipe.scheduler).__name__,
        scheduler_note=scheduler_note,
        guidance=guidance_of(type(pipe).__name__, type(family_of(pipe))),
        native_size=native,
        size=(height or native[0], width or native[1]),
        latents=(latents.height, latents.width, *((latents.frames,) if latents.frames > 1 else ())),
        text_tokens=pricer.text_tokens,
        parameters=sum(parameter.numel() for parameter in denoiser.parameters()),
        dtype=str(first.dtype).removeprefix("torch."),
        # Only U-Nets have blocks that are no units, and every one of theirs is known.
        known=bool(structure.blocks) or type(denoiser).__name__ in ARCHITECTURES,
        flops=table.total.flops,
        macs_conv_linear=table.total.macs_conv_linear,
        elsewhere_flops=table.always.flops,
        units=units,
        blocks=tuple(
            BlockOfUnits(block.name, tuple(structure.units[unit].name for unit in block.units))
            for block in structure.blocks
        ),
    )


def print_description(
    source: ModelSource,
    *,
    height: int | None,
    width: int | None,
    dtype: DType,
    depth: int | None,
    unfold: bool,
    as_json: bool,
    file: TextIO | None = None,
) -> None:
    """Describe a model on ``file``, by default stdout.

    Args:
        depth: levels of units to show, None for all.
        unfold: show alike units one by one.
        as_json: as a JSON document, which lists every unit in any case.
    """
    with during("while loading the model"):
        pipe = source.load("cpu", dtype)
    found = describe(pipe, height, width)
    if as_json:
        print(json.dumps({"model": source.name} | asdict(found)), file=file)
        return
    tree = found.tree if unfold else found.tree.folded()
    console = Console(highlight=False, file=file)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(Group(*_summary(source.name, found), UnitTree(tree if depth is None else tree.cut(depth))))


def _summary(name: str, found: Description) -> list[RenderableType]:
    latents = " x ".join(map(str, found.latents[:2]))
    frames = f", {found.latents[2]} frames" if len(found.latents) > 2 else ""
    facts = {
        "pipeline": found.pipeline,
        "denoiser": f"{found.denoiser}, {found.parameters:,} parameters, {found.dtype}",
        "scheduler": found.scheduler + (f" (not supported: {found.scheduler_note})" if found.scheduler_note else ""),
        "guidance": _GUIDANCE[found.guidance],
        "native size": f"{found.native_size[0]} x {found.native_size[1]} pixels",
        "size": f"{found.size[0]} x {found.size[1]} pixels, latents {latents}{frames}",
        "text tokens": str(found.text_tokens) if found.text_tokens else "none",
        "one call": f"{found.flops / 1e9:,.3f} GFLOPs, {found.macs_conv_linear / 1e9:,.3f} GMACs of convolutions and"
        " linear layers, for one sample",
    }
    if found.size == found.native_size:
        facts["native size"] += f", latents {latents}{frames}"
        del facts["size"]
    grid = Table.grid(padding=(0, 2, 0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for heading, fact in facts.items():
        grid.add_row(heading, Text(fact))
    lines: list[RenderableType] = [Text(name), grid]
    if not found.known:
        lines += [Text(), Text(_guess(found))]
    opaque = [unit for unit in found.units if unit.opaque]
    if opaque:
        lines += [Text(), Text(_unknown(opaque))]
    return [*lines, Text(), Text(_LEGEND)]


def _unknown(units: Sequence[UnitCost]) -> str:
    """What is said of modules that took the place of known ones."""
    named = [f"{unit.name} ({unit.opaque})" for unit in units]
    return (
        f"Not known here: {', '.join(named)}. Each is one unit, computed or reused as a whole, and priced as what has"
        " its place in a model made of the config."
    )


def _guess(found: Description) -> str:
    """What was found in a denoiser that no table lists."""
    described = [
        f"{part.name} ({', '.join(inner.name for inner in part.parts if inner.kind)})"
        for part in found.tree.folded().parts
        if part.kind
    ]
    return (
        f"{found.denoiser} is of no known class: its units were read off its lists of blocks."
        f" Found: {'; '.join(described)}."
    )
