"""Fewer steps against cheaper ones: the best of each arm at every budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.policy import Interval
from autotune.report.facts import percent
from autotune.report.plots.figure import Figure, dashed_line, note, titled_layout
from autotune.results.tradeoff import ARMS, BOTH, CHEAPER, FEWER, PAIRS, Tradeoff

_OF_ARMS = {
    FEWER: {"color": "@vermillion", "symbol": "square"},
    CHEAPER: {"color": "@blue", "symbol": "circle"},
    BOTH: {"color": "@green", "symbol": "diamond"},
}


def losses_by_arm(tradeoff: Tradeoff) -> Figure:
    """The best of each arm at every budget, on held-out prompts; the full run is zero."""
    data = []
    for place, arm in enumerate(ARMS):
        found = [(100 * level.share, level.winners[arm]) for level in tradeoff.levels if arm in level.winners]
        losses = [best.quality.loss for _, best in found]
        text = [
            f"{arm}: {best.id.replace('<', '&lt;')}<br>{percent(best.relative)} of the FLOPs,"
            f" loss {best.quality.loss.value:.3f} ({best.quality.loss.low:.3f} to {best.quality.loss.high:.3f})"
            for _, best in found
        ]
        data.append(_with_intervals(arm, place, [share for share, _ in found], losses, text, _OF_ARMS[arm]))
    layout = titled_layout("budget, % of the full run's FLOPs", "held-out loss (lower is better)")
    layout["shapes"] = [dashed_line(0, horizontal=True)]
    layout["annotations"] = [note("full run", x=1, y=0, xref="paper", xanchor="right", yanchor="bottom")]
    return {"data": data, "layout": layout}


def differences_by_arm(tradeoff: Tradeoff) -> Figure:
    """Losses of the arms against each other, paired by prompt; below zero the first is better."""
    data = []
    for place, (a, b) in enumerate(PAIRS):
        found = [(100 * level.share, pair) for level in tradeoff.levels if (pair := level.difference(a, b)) is not None]
        name = f"{a} \N{MINUS SIGN} {b}"
        text = [
            f"{name}: the same policy"
            if pair.same
            else f"{name}: {pair.loss.value:+.3f} ({pair.loss.low:+.3f} to {pair.loss.high:+.3f})"
            for _, pair in found
        ]
        look = _OF_ARMS[a] if b == FEWER else {"color": "@purple", "symbol": "triangle-up"}
        data.append(_with_intervals(name, place, [x for x, _ in found], [pair.loss for _, pair in found], text, look))
    layout = titled_layout("budget, % of the full run's FLOPs", "difference of losses (below 0: first better)")
    layout["shapes"] = [dashed_line(0, horizontal=True)]
    return {"data": data, "layout": layout}


def _with_intervals(
    name: str, place: int, x: Sequence[float], values: Sequence[Interval], text: Sequence[str], look: Mapping[str, str]
) -> dict[str, Any]:
    """A line of estimates with their intervals, moved aside a little so that those of several lines can be seen."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [each + 0.8 * (place - 1) for each in x],
        "y": [each.value for each in values],
        "text": list(text),
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": look["color"], "width": 1.5},
        "marker": {"color": look["color"], "symbol": look["symbol"], "size": 9},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [each.high - each.value for each in values],
            "arrayminus": [each.value - each.low for each in values],
            "thickness": 1.2,
            "width": 3,
            "color": look["color"],
        },
    }
