"""The candidates of a search: cost against loss, progress, and which knobs mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.report.facts import percent
from autotune.report.plots.figure import Figure, dashed_line, note, titled_layout
from autotune.report.run import Run, TrialSummary

# With more candidates, bars of all would hide everything.
MOST_BARS = 60
_BEST_WITH_BARS = 10
_SYMBOLS = (
    "diamond",
    "square",
    "triangle-up",
    "cross",
    "pentagon",
    "hexagram",
    "triangle-down",
    "star",
    "hourglass",
    "bowtie",
    "x",
)
_COLORS = ("@vermillion", "@green", "@orange", "@purple", "@sky", "@blue", "@faint")


def frontier(run: Run) -> Figure:
    """Cost against loss of every candidate, with the budget."""
    candidates = run.evaluated
    axis = _CostAxis.of(run)
    data = [*_plain(run, axis), *_recipes(run, axis), *_in_last_round(run, axis)]
    edge = _edge(
        [
            (cost, each.loss)
            for each in candidates
            if (cost := axis.of_candidate(each)) is not None and each.loss is not None
        ]
    )
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best for the cost",
            "x": [point[0] for point in edge],
            "y": [point[1] for point in edge],
            "line": {"shape": "hv", "width": 1.5, "color": "@ink", "dash": "dot"},
            "hoverinfo": "skip",
        }
    )
    layout = titled_layout(axis.title, "loss (lower is better)")
    layout["yaxis"]["range"] = _range([0.0, *(each.loss for each in candidates if each.loss is not None)])
    layout["shapes"] = [dashed_line(0, horizontal=True)]
    layout["annotations"] = [note("full run", x=1, y=0, xref="paper", xanchor="right", yanchor="bottom")]
    if axis.limit is not None:
        layout["shapes"].append(dashed_line(axis.limit, horizontal=False))
        layout["annotations"].append(note("budget", x=axis.limit, y=1, yref="paper", xanchor="right", yanchor="top"))
    return {"data": data, "layout": layout}


def progress(run: Run) -> Figure:
    """Loss of each candidate in the order of the search, and the best so far."""
    candidates = run.evaluated
    best, lowest = [], float("inf")
    for each in candidates:
        assert each.loss is not None
        lowest = min(lowest, each.loss)
        best.append(lowest)
    numbers = [each.number for each in candidates]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "candidates",
            "x": numbers,
            "y": [each.loss for each in candidates],
            "text": [_hover(each) for each in candidates],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"size": 7, "color": "@blue", "opacity": 0.75},
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": numbers,
            "y": best,
            "line": {"shape": "hv", "width": 2, "color": "@vermillion"},
            "hovertemplate": "best so far %{y:.3f}<extra></extra>",
        },
    ]
    failed = [each for each in run.candidates if each.failure is not None]
    if failed:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "failed",
                "x": [each.number for each in failed],
                "y": [0] * len(failed),
                "text": [f"trial {each.number} failed: {(each.failure or '')[:120]}" for each in failed],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"size": 9, "symbol": "x", "color": "@faint"},
            }
        )
    return {"data": data, "layout": titled_layout("trial", "loss (lower is better)")}


def importances(found: Mapping[str, float]) -> Figure:
    """Bars, the most important knob on top."""
    names = list(found)[::-1]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [100 * found[name] for name in names],
            "y": names,
            "marker": {"color": "@blue"},
            "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
            "showlegend": False,
        }
    ]
    return {"data": data, "layout": titled_layout("share of importance, %", "") | {"height": 90 + 34 * len(names)}}


@dataclass(frozen=True)
class _CostAxis:
    """What the cost of a run's candidates is told in: as a share of the full run's FLOPs, or predicted time.

    Attributes:
        limit: the budget; None where it says nothing of this.
    """

    in_time: bool
    limit: float | None

    @staticmethod
    def of(run: Run) -> _CostAxis:
        """Time, where the budget bounds nothing else."""
        record = run.search_record
        if record is None:
            return _CostAxis(False, None)
        if record.most_flops is None:
            return _CostAxis(record.most_ms is not None, record.most_ms)
        return _CostAxis(False, 100 * record.most_flops / record.full.flops)

    @property
    def title(self) -> str:
        return "predicted time of a call, ms" if self.in_time else "FLOPs, % of the full run"

    def of_candidate(self, each: TrialSummary) -> float | None:
        if self.in_time:
            return each.latency_ms
        return None if each.cost is None else 100 * each.cost


def _plain(run: Run, axis: _CostAxis) -> list[dict[str, Any]]:
    """Candidates of the search; the best of many have bars."""
    found = sorted(run.evaluated, key=lambda each: (each.loss, each.number))
    with_bars = {each.number for each in (found if len(found) <= MOST_BARS else found[:_BEST_WITH_BARS])}
    plain = [each for each in run.evaluated if each.recipe is None]
    traces = [
        _markers(
            [each for each in plain if (each.number in with_bars) is bars],
            axis,
            bars=bars,
            name="candidates",
            legendgroup="candidates",
            showlegend=bars,
            marker={"size": 8, "color": "@blue", "opacity": 0.75},
        )
        for bars in (False, True)
    ]
    if run.pruned:
        look = {"size": 5, "color": "@faint", "opacity": 0.7}
        traces.insert(0, _markers(run.pruned, axis, name="pruned", marker=look))
    return traces


def _recipes(run: Run, axis: _CostAxis) -> list[dict[str, Any]]:
    """Known settings, each with a mark of its own."""
    recipes = [each for each in run.evaluated if each.recipe is not None]
    return [
        _markers(
            [each],
            axis,
            bars=True,
            name=each.recipe,
            marker={
                "size": 11,
                "symbol": _SYMBOLS[place % len(_SYMBOLS)],
                "color": _COLORS[place % len(_COLORS)],
                "line": {"width": 1, "color": "@ink"},
            },
        )
        for place, each in enumerate(recipes)
    ]


def _in_last_round(run: Run, axis: _CostAxis) -> list[dict[str, Any]]:
    """Rings around the finalists."""
    if run.last_round is None:
        return []
    # With several budgets a finalist may be another study's trial, whose number means nothing here.
    ours = {each.trial for each in run.last_round.contenders[2:] if each.study in (None, run.study.study_name)}
    finalists = [each for each in run.evaluated if each.number in ours]
    marker = {"size": 18, "symbol": "circle-open", "color": "@ink", "line": {"width": 2}}
    return [_markers(finalists, axis, name="in the last round", marker=marker)] if finalists else []


def _markers(some: Sequence[TrialSummary], axis: _CostAxis, *, bars: bool = False, **look: Any) -> dict[str, Any]:
    """Candidates as points, with their intervals as ``bars``."""
    drawn: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "x": [axis.of_candidate(each) for each in some],
        "y": [each.loss for each in some],
        "text": [_hover(each) for each in some],
        "hovertemplate": "%{text}<extra></extra>",
    } | look
    if bars:
        drawn["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [_gap(each.high, each.loss) for each in some],
            "arrayminus": [_gap(each.loss, each.low) for each in some],
            "thickness": 1,
            "width": 2,
            "color": "@faint",
        }
    return drawn


def _hover(each: TrialSummary) -> str:
    cost = "" if each.cost is None else f"{percent(each.cost)} of the FLOPs, "
    between = "" if each.low is None else f" ({each.low:.3f} to {each.high:.3f})"
    # plotly reads these as markup.
    name = f"{each.id}{f', {each.recipe}' if each.recipe else ''}".replace("<", "&lt;")
    return f"trial {each.number}: {name}<br>{cost}loss {each.loss:.3f}{between}"


def _range(values: Sequence[float]) -> list[float]:
    """Around all values; wide intervals may leave it."""
    low, high = min(values), max(values)
    room = 0.15 * (high - low) or 0.1
    return [low - room, high + room]


def _gap(high: float | None, low: float | None) -> float:
    return 0.0 if high is None or low is None else max(0.0, high - low)


def _edge(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other undercuts in both, by cost."""
    edge: list[tuple[float, float]] = []
    for cost, loss in sorted(points):
        if not edge or loss < edge[-1][1]:
            edge.append((cost, loss))
    return edge
