"""A set of policies as people see it: a line for every tier, in a terminal and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from autotune.core.naming import FULL_TIER
from autotune.policy import Interval, PolicySet
from autotune.policy.words import in_words


@dataclass(frozen=True)
class TierLine:
    """One tier. What its policy's records do not say is None; shares are of the full run.

    Attributes:
        name: of the tier.
        steps: of its policy; None of a full run that nobody has counted.
        flops_share: of the denoising loop.
        time_share: of a call, measured or else predicted.
        loss: on held-out inputs, with the 95 % interval; 0 is the full run.
        difference: the loss minus that of fewer steps at the same cost, in pairs.
        id: of the policy.
        words: what it does.
    """

    name: str
    steps: int | None
    flops_share: float | None
    time_share: float | None
    loss: Interval | None
    difference: Interval | None
    id: str
    words: str


def tier_lines(policies: PolicySet) -> tuple[TierLine, ...]:
    """A line for the full run, then one for each tier in its order."""
    models = [policy.model for policy in policies.tiers.values() if policy.model is not None]
    full = TierLine(
        name=FULL_TIER,
        steps=models[0].full_steps if models else None,
        flops_share=1.0,
        time_share=1.0,
        loss=None,
        difference=None,
        id="",
        words="The full run: every step at full size, with guidance, nothing reused.",
    )
    lines = [full]
    for name, policy in policies.tiers.items():
        cost, quality = policy.cost, policy.quality
        times: list[float] = []
        if cost is not None:
            times = [*(time.relative for time in cost.measured), *(time.relative for time in cost.predicted)]
        lines.append(
            TierLine(
                name=name,
                steps=policy.steps,
                flops_share=None if cost is None else cost.relative,
                time_share=times[0] if times else None,
                loss=None if quality is None else quality.policy.loss,
                difference=None if quality is None else quality.difference,
                id=policy.id,
                words=in_words(policy),
            )
        )
    return tuple(lines)


def tiers_document(lines: Sequence[TierLine]) -> dict[str, Any]:
    """The lines as JSON has them, by the names of their tiers."""

    def interval(found: Interval | None) -> dict[str, float] | None:
        return None if found is None else found.model_dump(mode="json")

    return {
        line.name: asdict(line) | {"loss": interval(line.loss), "difference": interval(line.difference)}
        for line in lines
    }


def share_text(share: float | None) -> str:
    """``37.5%``, or a dash."""
    return "-" if share is None else f"{share:.1%}"


def interval_text(interval: Interval | None) -> str:
    """``0.085 (0.023..0.146)``, or a dash."""
    return "-" if interval is None else f"{interval.value:.3f} ({interval.low:.3f}..{interval.high:.3f})"


def tiers_table(lines: Sequence[TierLine]) -> Table:
    """Steps, cost and held-out loss of each tier, for a terminal."""
    table = Table(
        caption="FLOPs and time: shares of the full run. Loss on held-out inputs with its 95 % interval: 0 is the full"
        " run, lower is better.",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("tier", no_wrap=True)
    for heading in ("steps", "FLOPs", "time", "loss"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("policy", overflow="fold")
    for line in lines:
        loss = "0" if line.name == FULL_TIER else interval_text(line.loss)
        steps = "-" if line.steps is None else str(line.steps)
        table.add_row(line.name, steps, share_text(line.flops_share), share_text(line.time_share), loss, line.id)
    return table
