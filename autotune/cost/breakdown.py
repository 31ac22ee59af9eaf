"""Where a plan's cost goes: call by call, by kind of unit and by part of the denoiser. Sums are the policy's price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from autotune.cost.work import Work, WorkTable
from autotune.plan import DenoiserCall, Group, Pattern, Plan
from autotune.plan.structure import Structure

OUTSIDE = "embeddings, projections"
"""Work in no unit, which every call does."""

# What a unit does besides the units inside it: projections into and out of attention, modulation of a block.
_AROUND = "block projections"

Tables = Callable[[int, int], WorkTable]


class Latency(Protocol):
    """Milliseconds of one call; see :meth:`autotune.cost.latency.LatencyModel.call_ms`."""

    def call_ms(self, step: DenoiserCall) -> float: ...


@dataclass(frozen=True)
class CallCost:
    """One call of the denoiser for the whole batch; where guidance's branches have calls of their own, all of them.

    Attributes:
        index: which call, counted over the whole schedule.
        step: which of the policy's steps it belongs to.
        height, width: of the latents.
        branches: 2 where the conditional and the unconditional branch are computed, else 1.
        reuses_difference: whether the last difference of the branches stands in for the unconditional one.
        computed, taken, not_needed: units that compute, that take from memory, and that nothing reads.
        flops: two per multiply-add.
        macs_conv_linear: multiply-adds of convolutions and linear layers only.
        relative: ``flops`` as a fraction of those of a call of the full run.
        latency_ms: of the denoiser; None without a latency model.
        kept_bytes: of what is kept in memory when the call ends, before those that nobody takes any more are dropped.
    """

    index: int
    step: int
    height: int
    width: int
    branches: int
    reuses_difference: bool
    computed: int
    taken: int
    not_needed: int
    flops: int
    macs_conv_linear: int
    relative: float
    latency_ms: float | None
    kept_bytes: int

    @property
    def guidance(self) -> str:
        """``yes``, ``reused`` where it adds the last difference of its branches again, or ``no``."""
        return "reused" if self.reuses_difference else "yes" if self.branches > 1 else "no"


@dataclass(frozen=True)
class GroupCost:
    """FLOPs of some of the denoiser's units over all calls, for the whole batch.

    Attributes:
        name: what the units have in common.
        flops: under the policy.
        full_flops: in the full run.
    """

    name: str
    flops: int
    full_flops: int


@dataclass(frozen=True)
class Breakdown:
    """A plan's cost in parts; the FLOPs of ``steps``, of ``groups`` and of ``parts`` each sum up to the whole.

    Attributes:
        steps: the calls of the denoiser.
        groups: by kind of unit, the most expensive first.
        parts: by block of a U-Net or list of blocks of a transformer, in order of execution.
        full_call_flops: of one call of the full run, for the whole batch.
    """

    steps: tuple[CallCost, ...]
    groups: tuple[GroupCost, ...]
    parts: tuple[GroupCost, ...]
    full_call_flops: int


def break_down(
    plan: Plan, full: Plan, table: Tables, *, itemsize: int, batch_size: int = 1, latency: Latency | None = None
) -> Breakdown:
    """Break the cost of ``plan`` down.

    Args:
        full: the plan of the full run.
        table: work of one call for one sample, by height and width of the latents.
        itemsize: bytes of a value that is kept.
        batch_size: pictures in one call of the pipeline.
        latency: predicts calls with ``batch_size`` pictures.
    """
    first = full.steps[0]
    of_full_call = table(first.height, first.width).total.flops * first.branches
    kinds, parts = _kinds(plan.structure), parts_of(plan.structure)
    work = _unit_work(plan, table), _unit_work(full, table)
    groups = _grouped(kinds, *work, batch_size)
    return Breakdown(
        steps=_calls(plan, table, of_full_call, itemsize, batch_size, latency),
        groups=tuple(sorted(groups, key=lambda group: group.full_flops, reverse=True)),
        parts=_grouped(parts, *work, batch_size),
        full_call_flops=of_full_call * batch_size,
    )


def kept_elements(plan: Plan, table: Tables) -> tuple[int, ...]:
    """Values in memory as each call ends, for one picture, before those that nobody takes any more are dropped.

    They are kept features, and the difference of guidance's branches.
    """
    kept: dict[tuple[Group, int], int] = {}
    held: list[int] = []
    for position, step in enumerate(plan.steps):
        counted = table(step.height, step.width)
        for group in step.kept:
            kept[group, step.index] = sum(counted.elements[unit] for unit in group) * step.branches
        held.append(sum(kept.values()) + (counted.output if plan.holds_difference(position) else 0))
        for output in step.dropped:
            del kept[output]
    return tuple(held)


def _calls(
    plan: Plan, table: Tables, of_full_call: int, itemsize: int, batch_size: int, latency: Latency | None
) -> tuple[CallCost, ...]:
    @cache
    def of_sample(pattern: Pattern, height: int, width: int) -> Work:
        counted = table(height, width)
        return counted.of(pattern.computed)

    def cost(position: int, step: DenoiserCall, elements: int) -> CallCost:
        work = of_sample(step.pattern, step.height, step.width) * step.branches
        computed, taken = len(step.pattern.computed), len(step.pattern.taken)
        return CallCost(
            index=step.index,
            step=step.step,
            height=step.height,
            width=step.width,
            branches=step.branches,
            reuses_difference=plan.reuses_difference(position),
            computed=computed,
            taken=taken,
            not_needed=len(plan.structure.units) - computed - taken,
            flops=work.flops * batch_size,
            macs_conv_linear=work.macs_conv_linear * batch_size,
            relative=work.flops / of_full_call,
            latency_ms=None if latency is None else latency.call_ms(step),
            kept_bytes=elements * itemsize * batch_size,
        )

    return tuple(map(cost, range(len(plan.steps)), plan.steps, kept_elements(plan, table)))


def _unit_work(plan: Plan, table: Tables) -> list[int]:
    """FLOPs of every unit over all calls for one picture; last, of what is in no unit."""
    rows: Counter[tuple[Pattern, int, int]] = Counter()
    for step in plan.steps:
        rows[step.pattern, step.height, step.width] += step.branches
    flops = [0] * (len(plan.structure.units) + 1)
    for (pattern, height, width), count in rows.items():
        counted = table(height, width)
        for unit in pattern.computed:
            flops[unit] += counted.units[unit].flops * count
        flops[-1] += counted.always.flops * count
    return flops


def _grouped(
    names: Sequence[str], flops: Sequence[int], full_flops: Sequence[int], batch_size: int
) -> tuple[GroupCost, ...]:
    """Units and what is in none, by name; names without work are left out."""
    policy: Counter[str] = Counter()
    full: Counter[str] = Counter()
    for name, own, own_of_full in zip((*names, OUTSIDE), flops, full_flops, strict=True):
        policy[name] += own * batch_size
        full[name] += own_of_full * batch_size
    return tuple(GroupCost(name, policy[name], full[name]) for name in full if full[name])


def _kinds(structure: Structure) -> list[str]:
    """What each unit's own work is, in a word."""
    holders = set(structure.parents)
    return [_AROUND if position in holders else unit.kind for position, unit in enumerate(structure.units)]


def parts_of(structure: Structure) -> list[str]:
    """For each unit the U-Net's block or the list of blocks that it is in, or its own name."""
    blocks = {unit: block.name for block in structure.blocks for unit in block.units}
    return [blocks.get(position, unit.name.partition(".")[0]) for position, unit in enumerate(structure.units)]
