"""Fewer steps or cheaper steps? The result as a table in a terminal, and as rows of one in a page."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.table import Table

from autotune.core.naming import singular
from autotune.policy import Interval
from autotune.results.tradeoff import ARMS, PAIRS, BudgetLevel, Tradeoff, share_text


@dataclass(frozen=True)
class Figure:
    """A number and its interval written out, with what it is of; or, without an interval, why there is none.

    ``sure`` where the sign of a difference is beyond doubt.
    """

    value: str
    interval: str = ""
    of: str = ""
    sure: bool = False


@dataclass(frozen=True)
class TradeoffRow:
    """One budget: the best of each arm, then each pair of arms."""

    budget: str
    arms: tuple[Figure, ...]
    differences: tuple[Figure, ...]


def headings() -> tuple[str, ...]:
    """Of the columns after the budget."""
    return (*ARMS, *(f"{a} \N{MINUS SIGN} {b}" for a, b in PAIRS))


def rows_of(tradeoff: Tradeoff) -> tuple[TradeoffRow, ...]:
    """A row for every budget, growing."""
    return tuple(
        TradeoffRow(
            share_text(level.share),
            tuple(_best(level, arm) for arm in ARMS),
            tuple(_difference(level, a, b, tradeoff.enough) for a, b in PAIRS),
        )
        for level in tradeoff.levels
    )


def tradeoff_table(tradeoff: Tradeoff) -> Table:
    """Held-out losses of the best of each arm and their differences, every one with its 95 % interval."""
    table = Table(
        title=f"Fewer steps or cheaper steps? {tradeoff.held_out_images} pictures of {tradeoff.held_out_prompts}"
        f" {tradeoff.noun} that no search saw",
        caption="Loss of the best of each arm, 0 is the full run, lower is better; then differences of these losses,"
        f" paired by {singular(tradeoff.noun)}; * beyond doubt. Below each its 95 % interval.",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("FLOPs", justify="right", no_wrap=True)
    for heading in headings():
        table.add_column(heading, justify="right")
    for row in rows_of(tradeoff):
        table.add_row(row.budget, *(_cell(each) for each in (*row.arms, *row.differences)))
    return table


def _best(level: BudgetLevel, arm: str) -> Figure:
    if arm in level.missing:
        return Figure("not feasible", of=level.missing[arm])
    best = level.winners[arm]
    return Figure(f"{best.quality.loss.value:.3f}", _between(best.quality.loss), best.id)


def _difference(level: BudgetLevel, a: str, b: str, sure: bool) -> Figure:
    found = level.difference(a, b)
    if found is None:
        return Figure("")
    if found.same:
        return Figure("the same")
    return Figure(f"{found.loss.value:+.3f}", _between(found.loss, sign=True), sure=sure and bool(found.sign))


def _between(interval: Interval, *, sign: bool = False) -> str:
    form = f"{'+' if sign else ''}.2f"
    return f"{interval.low:{form}}..{interval.high:{form}}"


def _cell(figure: Figure) -> str:
    return f"{figure.value}{'*' * figure.sure}\n{figure.interval}"
