"""The end of a run in a table and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table

from autotune.core.naming import FULL_RUN
from autotune.policy import ContenderQuality, Interval


@dataclass(frozen=True)
class Row:
    """One run. Shares are of the full run; ``time_share`` is None where no time was measured.

    ``second_opinion`` is its loss before a judge that the search did not ask, where there was one.
    """

    name: str
    steps: int
    flops_share: float
    time_share: float | None
    quality: ContenderQuality
    second_opinion: Interval | None = None


def results_table(
    rows: Sequence[Row], *, prompts: int, images: int, noun: str = "prompts", second_opinion: str | None = None
) -> Table:
    """Steps, cost and held-out scores of each run, every score with its 95 % interval.

    Args:
        rows: Best known first: full run, fewer steps, the policy.
        prompts: Different inputs held out.
        images: Pictures made of each run.
        noun: What the inputs are.
        second_opinion: The judge that the search did not ask, of every row; None where there was none.
    """
    aligned = all(row.quality.alignment is not None for row in rows)
    erring = all(row.quality.error is not None for row in rows)
    found = ("distance", *(("alignment",) if aligned else ()), *(("error",) if erring else ()), "loss")
    # What decides, of more than 80 columns hold; the report shows all.
    scores = found[-2:] if erring or second_opinion is not None else found
    said = {"distance": "distance (to the reference)", "error": "error (0: approximates nothing, 1: coarse pictures)"}
    lower = [said.get(score, score) for score in scores if score != "alignment"]
    words = " and ".join(filter(None, (", ".join(lower[:-1]), lower[-1])))
    table = Table(
        title=f"{images} pictures of {prompts} {noun} that the search never saw",
        caption=f"Below each score its 95 % interval. {words[0].upper()}{words[1:]}: lower is better."
        + (" Alignment: higher is better." if "alignment" in scores else "")
        + ("" if aligned else f" No alignment: the {noun} have no prompts that differ."),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("run", min_width=len(FULL_RUN) if erring else None, overflow="fold")
    for heading in ("steps", "FLOPs", "time", *scores):
        table.add_column(heading, justify="right", no_wrap=True)
    if second_opinion is not None:
        table.add_column(f"loss by\n{second_opinion}", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row.name),
            str(row.steps),
            f"{row.flops_share:.1%}",
            "-" if row.time_share is None else f"{row.time_share:.1%}",
            *(_estimate(getattr(row.quality, score)) for score in scores),
            *([_estimate(row.second_opinion)] if second_opinion is not None and row.second_opinion is not None else []),
        )
    return table


def _estimate(interval: Interval) -> str:
    return f"{interval.value:.3f}\n{interval.low:.3f}..{interval.high:.3f}"
