"""A plan as a picture, independent of what draws it: calls across, units down, those that do the same in one row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from autotune.cost.breakdown import parts_of
from autotune.cost.work import WorkTable
from autotune.plan import Action, Plan
from autotune.plan.structure import Structure

WORDS = {
    Action.COMPUTE: "compute",
    Action.REUSE: "reuse",
    Action.FORECAST: "forecast",
    Action.RESIDUAL: "residual",
    Action.NOT_NEEDED: "not needed",
}

_NAMED = 2


@dataclass(frozen=True)
class Column:
    """One call of the denoiser.

    Attributes:
        guidance: ``on``, ``reused`` where the last difference of its branches serves again, or ``off``.
        fresh: everything is computed, whatever the policy says.
    """

    step: int
    height: int
    width: int
    guidance: Literal["on", "reused", "off"]
    fresh: bool
    handoff: str | None


@dataclass(frozen=True)
class Row:
    """Units of one part of the denoiser that do the same in every call; ``share`` is theirs of a full call's FLOPs."""

    label: str
    units: int
    share: float | None
    actions: tuple[Action, ...]


@dataclass(frozen=True)
class Span:
    """Consecutive columns, both ends included, that are alike."""

    first: int
    last: int
    text: str


@dataclass(frozen=True)
class PlanPicture:
    """What is drawn.

    Attributes:
        columns: calls of the denoiser.
        rows: in order of execution.
        guidance: whether the pipeline guides at all.
        factor: what guidance adds is multiplied by it.
        outside: share of a full call's FLOPs that is in no unit; None where it is not known.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    guidance: bool
    factor: float
    outside: float | None

    @property
    def guidance_name(self) -> str:
        """What to call the row of guidance: ``guidance``, or ``guidance x1.5``."""
        return "guidance" if self.factor == 1 else f"guidance x{self.factor:g}"

    @property
    def used(self) -> tuple[Action, ...]:
        """The actions there are, for a legend."""
        return tuple(action for action in Action if any(action in row.actions for row in self.rows))

    @property
    def resolutions(self) -> tuple[Span, ...]:
        """Latent sizes."""
        return _spans([f"{column.height} x {column.width}" for column in self.columns])

    @property
    def guided(self) -> tuple[Span, ...]:
        """Where classifier-free guidance runs, and where it reuses what it added last."""
        return _spans([column.guidance for column in self.columns])


def draw(plan: Plan, table: WorkTable | None = None, *, unfold: bool = False) -> PlanPicture:
    """Lay a plan out.

    Args:
        plan: the plan.
        table: work of a call at full size, for shares.
        unfold: one row per unit.
    """
    structure = plan.structure
    per_call = [step.actions for step in plan.steps]
    actions = [tuple(call[unit] for call in per_call) for unit in range(len(structure.units))]
    parts = parts_of(structure)
    groups: dict[tuple[object, ...], list[int]] = {}
    for unit, done in enumerate(actions):
        key = (unit,) if unfold else (parts[unit], done)
        groups.setdefault(key, []).append(unit)
    whole = {part: [unit for unit, name in enumerate(parts) if name == part] for part in parts}
    total = table.total.flops if table else 0

    def row(units: list[int]) -> Row:
        share = sum(table.units[unit].flops for unit in units) / total if table else None
        label = structure.units[units[0]].name if unfold else label_of(structure, units, whole[parts[units[0]]])
        return Row(label, len(units), share, actions[units[0]])

    def guidance(position: int) -> Literal["on", "reused", "off"]:
        if plan.reuses_difference(position):
            return "reused"
        return "on" if plan.steps[position].branches > 1 else "off"

    return PlanPicture(
        columns=tuple(
            Column(step.step, step.height, step.width, guidance(position), step.fresh, step.handoff)
            for position, step in enumerate(plan.steps)
        ),
        rows=tuple(map(row, groups.values())),
        guidance=plan.guided,
        factor=next((found for at in range(len(plan.steps)) if (found := plan.factor(at)) != 1), 1.0),
        outside=table.always.flops / total if table else None,
    )


def runs_of(actions: Sequence[Action]) -> list[tuple[Action, int, int]]:
    """Action, first and last column of each stretch of the same."""
    found, column = [], 0
    for action, stretch in groupby(actions):
        length = len(list(stretch))
        found.append((action, column, column + length - 1))
        column += length
    return found


def label_of(structure: Structure, units: Sequence[int], part: Sequence[int]) -> str:
    """A short name for some ``units`` of a ``part`` of the denoiser."""
    names = [structure.units[unit].name for unit in units]
    stem = parts_of(structure)[units[0]]
    if len(units) == len(part):
        return stem
    if len(units) <= _NAMED:
        return ", ".join(names)
    left_out = [structure.units[unit].name for unit in part if unit not in units]
    if len(left_out) <= _NAMED:
        return f"{stem} without {', '.join(name.removeprefix(f'{stem}.') for name in left_out)}"
    kinds = list(dict.fromkeys(structure.units[unit].kind for unit in units))
    numbers = [_number(name, stem) for name in names]
    inside = [unit for unit in part if _number(structure.units[unit].name, stem) in set(numbers)]
    where = stem
    if None not in numbers:
        of_part = {_number(structure.units[unit].name, stem) for unit in part}
        if set(numbers) != of_part:
            where = f"{stem}.{_ranges(sorted({number for number in numbers if number is not None}))}"
    if len(inside) == len(units):
        return where
    every = [unit for unit in inside if structure.units[unit].kind in kinds]
    return f"{where}: {', '.join(kinds)}" if len(every) == len(units) else f"{where}: some {', '.join(kinds)}"


def shortened(row: Row, word: str, most: int, dots: str) -> str:
    """The label of a row with its number of units, in ``most`` letters.

    What it begins with says where the units are. A single unit also keeps its last part, which says what it is.

    Args:
        row: The row.
        word: What follows the number.
        most: Letters that there is room for.
        dots: What stands for letters left out.
    """
    tail = f" ({row.units}{word})" if row.units > 1 else row.label[row.label.rfind(".") :] if "." in row.label else ""
    head = row.label if row.units > 1 else row.label.removesuffix(tail)
    if len(head) + len(tail) <= most:
        return head + tail
    return f"{head[: max(most - len(dots) - len(tail), 0)].rstrip(' ,.:')}{dots}{tail}"[:most]


def _number(name: str, stem: str) -> int | None:
    """Which of a list of blocks a unit is in."""
    match = re.match(r"\.(\d+)(?:\.|$)", name.removeprefix(stem))
    return int(match[1]) if match else None


def _ranges(numbers: Sequence[int]) -> str:
    """``0-2, 5``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _spans(texts: Sequence[str]) -> tuple[Span, ...]:
    found, column = [], 0
    for text, stretch in groupby(texts):
        length = len(list(stretch))
        found.append(Span(column, column + length - 1, text))
        column += length
    return tuple(found)
