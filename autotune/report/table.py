"""The end of a run in a table and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table

from autotune.policy import ContenderQuality, Interval


@dataclass(frozen=True)
class Row:
    """One run. Shares are of the full run; ``time_share`` is None where no time was measured."""

    name: str
    steps: int
    flops_share: float
    time_share: float | None
    quality: ContenderQuality


def results_table(rows: Sequence[Row], *, prompts: int, images: int, noun: str = "prompts") -> Table:
    """Steps, cost and held-out scores of each run, every score with its 95 % interval.

    Args:
        rows: Best known first: full run, fewer steps, the policy.
        prompts: Different inputs held out.
        images: Pictures made of each run.
        noun: What the inputs are.
    """
    aligned = all(row.quality.alignment is not None for row in rows)
    erring = all(row.quality.error is not None for row in rows)
    table = Table(
        title=f"{images} pictures of {prompts} {noun} that the search never saw",
        caption="Below each score its 95 % interval. Distance (to the reference)"
        + (", error (0: the exact run with the same guidance, 1: coarse pictures)" if erring else "")
        + " and loss: lower is better."
        + (" Alignment: higher is better." if aligned else f" No alignment: the {noun} have no prompts that differ."),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("run", overflow="fold")
    scores = ("distance", *(("alignment",) if aligned else ()), *(("error",) if erring else ()), "loss")
    for heading in ("steps", "FLOPs", "time", *scores):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row.name),
            str(row.steps),
            f"{row.flops_share:.1%}",
            "-" if row.time_share is None else f"{row.time_share:.1%}",
            *(_estimate(getattr(row.quality, score)) for score in scores),
        )
    return table


def verdict(difference: Interval, fewer_steps: int) -> str:
    """Whether the policy beats fewer steps at the same cost, in one sentence that claims no more than was seen.

    Args:
        difference: Loss of the policy minus that of fewer steps, paired by prompt.
        fewer_steps: How many plain steps cost the same.
    """
    rival = f"{fewer_steps} plain steps at the same cost"
    seen = f"{difference.value:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"
    if difference.high < 0:
        return f"The policy beats {rival}: its held-out loss differs by {seen}."
    if difference.value < 0:
        return f"The best policy found looks better than {rival}, but not beyond doubt: its loss differs by {seen}."
    return f"Nothing found within the budget beats {rival}: the best policy's held-out loss differs by {seen}."


def _estimate(interval: Interval) -> str:
    return f"{interval.value:.3f}\n{interval.low:.3f}..{interval.high:.3f}"
