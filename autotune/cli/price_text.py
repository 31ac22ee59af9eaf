"""A policy's price for people: totals, a table of the denoiser's calls and one of its units, each with a bar chart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TextIO

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from autotune.cli.quote import Quote
from autotune.core.naming import FULL_TIER
from autotune.cost.breakdown import CallCost, GroupCost
from autotune.cost.encoder_decoder import EncoderDecoderCost

# Columns where the output is no terminal, and the most that lines need.
_WIDTH = 100
_LEAST_BAR = 6
_EIGHTHS = " ▏▎▍▌▋▊▉"
# Where columns stand closer together.
_NARROW = 95
_FILLED, _EMPTY = "cyan", "bright_black"


_Steps = tuple[tuple[str, int], ...]
_DECIMAL: _Steps = (("T", 10**12), ("G", 10**9), ("M", 10**6))
_BINARY: _Steps = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


@dataclass(frozen=True)
class Scale:
    """One unit for figures that are compared with one another."""

    unit: str
    divisor: int
    digits: int

    @staticmethod
    def of_work(largest: int) -> Scale:
        """``unit`` is a prefix."""
        return Scale._fitting(largest, _DECIMAL, 3)

    @staticmethod
    def of_bytes(largest: int) -> Scale:
        return Scale._fitting(largest, _BINARY, 2)

    @staticmethod
    def of_times(largest: float) -> Scale:
        """Always milliseconds; long ones have fewer digits."""
        return Scale("ms", 1, 2 if largest < 100 else 1)

    @staticmethod
    def _fitting(largest: int, steps: _Steps, digits: int) -> Scale:
        """The largest unit in which ``largest`` is at least 1, or the smallest there is."""
        unit, divisor = next((step for step in steps if largest >= step[1]), steps[-1])
        return Scale(unit, divisor, digits)

    def shown(self, value: float) -> str:
        return f"{value / self.divisor:,.{self.digits}f}"


@dataclass(frozen=True)
class Bar:
    """A bar in a table's cell; ``filled`` and ``whole`` are shares of the cell's width."""

    filled: float
    whole: float = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Blocks of an eighth of a column; of a column where the output knows ASCII only."""
        width = options.max_width
        if options.ascii_only:
            bar, empty = "#" * math.ceil(self.filled * width), "."
        else:
            # What costs anything shows.
            whole, eighths = divmod(math.ceil(self.filled * width * 8), 8)
            bar, empty = "█" * whole + (_EIGHTHS[eighths] if eighths else ""), "░"
        rest = round(self.whole * width) - len(bar)
        yield Text.assemble((bar, _FILLED), (empty * rest, _EMPTY), no_wrap=True, end="")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As wide as there is room for."""
        return Measurement(_LEAST_BAR, max(_LEAST_BAR, options.max_width))


def print_quote(quote: Quote, file: TextIO | None = None, width: int | None = None) -> None:
    """Print a price on ``file``, by default stdout.

    Args:
        width: in columns; by default what a terminal has, but no more than the tables need.
    """
    console = Console(highlight=False, file=file)
    console.width = width or (min(console.width, _WIDTH) if console.is_terminal else _WIDTH)
    for part in (_heading(quote), _totals(quote), _calls(quote, console.width), _groups(quote, console.width)):
        console.print(part)


def print_quotes(quotes: Mapping[str, Quote], file: TextIO | None = None) -> None:
    """Print the totals of several prices on one model, a line each, and of the full run before them."""
    console = Console(highlight=False, file=file)
    console.width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    first = next(iter(quotes.values()))
    rows = {FULL_TIER: (first.full_steps, first.full), **{n: (_steps(q), q.cost) for n, q in quotes.items()}}
    work = Scale.of_work(first.full.flops)
    memory = Scale.of_bytes(max(cost.cache_bytes for _, cost in rows.values()))
    times = Scale.of_times(first.full.latency_ms or 0)
    headings = ["tier", "steps", f"denoising,\n{work.unit}FLOPs", *["a call,\nms"] * (first.device is not None)]
    table = _table([*headings, f"kept,\n{memory.unit}"], "of the full run", console.width)
    for name, (steps, cost) in rows.items():
        timed = [] if cost.latency_ms is None else [times.shown(cost.latency_ms)]
        cells = [name, str(steps), work.shown(cost.flops), *timed, memory.shown(cost.cache_bytes)]
        table.add_row(*cells, f"{cost.relative:.1%}", Bar(min(cost.relative, 1)))
    pictures = "1 picture" if first.batch == 1 else f"{first.batch} pictures in a call"
    on = "" if first.device is None else f", on {first.device}"
    console.print(
        Text(f"{len(quotes)} tiers on {first.model}\n{first.height} x {first.width} pixels, {pictures}{on}\n")
    )
    console.print(table)


def _steps(quote: Quote) -> int:
    return len({call.step for call in quote.breakdown.steps})


def _heading(quote: Quote) -> Text:
    pictures = "1 picture" if quote.batch == 1 else f"{quote.batch} pictures in a call"
    size = f"{quote.height} x {quote.width} pixels, latents {quote.latents[0]} x {quote.latents[1]}"
    return Text.assemble((quote.policy, "bold"), f" on {quote.model}\n{size}, {pictures}\n")


def _totals(quote: Quote) -> Table:
    cost, full, scale = quote.cost, quote.full, Scale.of_work(quote.full.flops)
    steps = f"{quote.full_steps} step{'s' * (quote.full_steps > 1)}"
    grid = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "left"):
        grid.add_column(justify=justify, no_wrap=True)
    grid.add_column()
    grid.add_row(
        "denoising",
        scale.shown(cost.flops),
        f"{scale.unit}FLOPs",
        f"{cost.relative:.1%} of the full run's {scale.shown(full.flops)} in {steps}",
    )
    grid.add_row(
        "conv + linear",
        scale.shown(cost.macs_conv_linear),
        f"{scale.unit}MACs",
        "what papers call MACs",
    )
    if cost.latency_ms is not None and full.latency_ms is not None:
        times = Scale.of_times(full.latency_ms)
        share = f"{cost.latency_ms / full.latency_ms:.1%} of the full run's {times.shown(full.latency_ms)}"
        grid.add_row("latency", times.shown(cost.latency_ms), "ms", f"{share} for the whole call, on {quote.device}")
    for name, size, when in (
        ("kept features", cost.cache_bytes, "in memory at most"),
        ("extra latents", cost.latent_bytes, "in memory while latents are small"),
    ):
        memory = Scale.of_bytes(size)
        grid.add_row(name, memory.shown(size), memory.unit, when)
    for row in _encoder_decoder(quote.encoder_decoder, scale):
        grid.add_row(*row)
    return grid


def _encoder_decoder(around: EncoderDecoderCost, scale: Scale) -> Iterator[tuple[str, str, str, str]]:
    besides = "besides, under any policy"
    for name, work in around.text_encoders.items():
        yield name.replace("_", " "), scale.shown(work.flops), f"{scale.unit}FLOPs", besides
    if around.vae_decoder is not None:
        yield "VAE decoder", scale.shown(around.vae_decoder.flops), f"{scale.unit}FLOPs", besides
    for name, reason in around.not_counted:
        yield "not counted", "", "", f"{name.replace('_', ' ')}: {reason}"


def _calls(quote: Quote, width: int) -> Table:
    """One row for consecutive calls that are alike."""
    breakdown = quote.breakdown
    scale, memory = Scale.of_work(breakdown.full_call_flops), Scale.of_bytes(quote.cost.cache_bytes)
    # Second-order solvers call more than once a step.
    counted = len(breakdown.steps) != len({call.step for call in breakdown.steps})
    times = Scale.of_times(max(call.latency_ms or 0 for call in breakdown.steps))
    timed, keeping = quote.device is not None, quote.cost.cache_bytes > 0
    guided = any(call.guidance != "no" for call in breakdown.steps)
    headings = [
        "steps",
        *["calls"] * counted,
        "latents",
        *["guided"] * guided,
        "units\ncomputed",
        "units\nreused",
        f"a call,\n{scale.unit}FLOPs",
        *["a call,\nms"] * timed,
        *[f"kept,\n{memory.unit}"] * keeping,
    ]
    table = _table(headings, "of a full call", width)
    for calls in _alike(breakdown.steps):
        first, last = calls[0], calls[-1]
        cells = [
            str(first.step) if first.step == last.step else f"{first.step}-{last.step}",
            *[str(len(calls))] * counted,
            f"{first.height}x{first.width}",
            *[first.guidance] * guided,
            str(first.computed),
            str(first.taken),
            scale.shown(first.flops),
            *[times.shown(first.latency_ms or 0)] * timed,
            *[memory.shown(first.kept_bytes)] * keeping,
        ]
        table.add_row(*cells, f"{first.relative:.1%}", Bar(first.relative))
    return table


def _groups(quote: Quote, width: int) -> Table:
    """All calls together, by kind of unit and again by part of the denoiser, on one scale."""
    groups, parts = quote.breakdown.groups, quote.breakdown.parts
    scale = Scale.of_work(quote.full.flops)
    largest = max(max(group.flops, group.full_flops) for group in (*groups, *parts))
    headings = ["all calls", f"full run,\n{scale.unit}FLOPs", f"policy,\n{scale.unit}FLOPs"]
    table = _table(headings, "policy against full run", width)
    for section in (groups, parts):
        for group in section:
            table.add_row(*_cells(group, scale), Bar(group.flops / largest, group.full_flops / largest))
        table.add_section()
    table.add_row(*_cells(GroupCost("all", quote.cost.flops, quote.full.flops), scale))
    return table


def _cells(group: GroupCost, scale: Scale) -> tuple[str, str, str, str]:
    share = f"{group.flops / group.full_flops:.1%}"
    return group.name, scale.shown(group.full_flops), scale.shown(group.flops), share


def _table(headings: Sequence[str], chart: str, width: int) -> Table:
    """With the first column for names, the others for figures, and two more for a share and its bar."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1 if width > _NARROW else 0),
        collapse_padding=True,
        header_style="bold",
    )
    for position, heading in enumerate((*headings, "share")):
        table.add_column(Text(heading), justify="right" if position else "left", no_wrap=True)
    # The only one that gives way where there is too little room.
    table.add_column(Text(chart))
    return table


def _alike(calls: Sequence[CallCost]) -> list[list[CallCost]]:
    """Runs of calls that differ in nothing but their place."""
    return [list(run) for _, run in groupby(calls, key=lambda call: replace(call, index=0, step=0))]
