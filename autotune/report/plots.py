"""Interactive plots, as plotly.js takes them. Colours are names that the page resolves, for light and for dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.cost.breakdown import Breakdown, GroupCost
from autotune.plan import Action
from autotune.policy import Interval
from autotune.report.facts import percent
from autotune.report.plan_picture import WORDS, PlanPicture, runs_of
from autotune.report.run import Run, TrialSummary
from autotune.results.tradeoff import PAIRS, Tradeoff
from autotune.search.arms import ARMS, BOTH, CHEAPER, FEWER

Figure = dict[str, Any]
"""``data`` and ``layout``."""

_LONGEST_LABEL = 38

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
_OF_ARMS = {
    FEWER: {"color": "@vermillion", "symbol": "square"},
    CHEAPER: {"color": "@blue", "symbol": "circle"},
    BOTH: {"color": "@green", "symbol": "diamond"},
}
_COLORS = ("@vermillion", "@green", "@orange", "@purple", "@sky", "@blue", "@faint")


def frontier(run: Run) -> Figure:
    """Cost against loss of every candidate, with the budget."""
    candidates = run.evaluated
    in_time = (
        run.search_record is not None and run.search_record.most_flops is None and run.search_record.most_ms is not None
    )
    found = sorted(candidates, key=lambda each: (each.loss, each.number))
    with_bars = {each.number for each in (found if len(found) <= MOST_BARS else found[:_BEST_WITH_BARS])}
    # With several budgets a finalist may be another study's trial, whose number means nothing here.
    finalists = (
        {each.trial for each in run.last_round.contenders[2:] if each.study in (None, run.study.study_name)}
        if run.last_round
        else set()
    )

    def x(each: TrialSummary) -> float | None:
        return each.latency_ms if in_time else None if each.cost is None else 100 * each.cost

    def trace(some: Sequence[TrialSummary], bars: bool, **look: Any) -> dict[str, Any]:
        drawn: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "x": [x(each) for each in some],
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

    plain = [each for each in candidates if each.recipe is None]
    data = [
        trace(
            [each for each in plain if (each.number in with_bars) is bars],
            bars,
            name="candidates",
            legendgroup="candidates",
            showlegend=bars,
            marker={"size": 8, "color": "@blue", "opacity": 0.75},
        )
        for bars in (False, True)
    ]
    if run.pruned:
        look = {"size": 5, "color": "@faint", "opacity": 0.7}
        data.insert(0, trace(run.pruned, False, name="given up early", marker=look))
    recipes = [each for each in candidates if each.recipe is not None]
    for place, each in enumerate(recipes):
        marker = {
            "size": 11,
            "symbol": _SYMBOLS[place % len(_SYMBOLS)],
            "color": _COLORS[place % len(_COLORS)],
            "line": {"width": 1, "color": "@ink"},
        }
        data.append(trace([each], True, name=each.recipe, marker=marker))
    in_last_round = [each for each in candidates if each.number in finalists]
    if in_last_round:
        marker = {"size": 18, "symbol": "circle-open", "color": "@ink", "line": {"width": 2}}
        data.append(trace(in_last_round, False, name="in the last round", marker=marker))
    edge = _edge([(cost, each.loss) for each in candidates if (cost := x(each)) is not None and each.loss is not None])
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
    unit = "predicted time of a call, ms" if in_time else "FLOPs, % of the full run"
    layout = _layout(unit, "loss (lower is better)")
    layout["yaxis"]["range"] = _range([0.0, *(each.loss for each in candidates if each.loss is not None)])
    layout["shapes"] = [_line(0, horizontal=True)]
    layout["annotations"] = [_note("full run", x=1, y=0, xref="paper", xanchor="right", yanchor="bottom")]
    limit = _limit(run, in_time)
    if limit is not None:
        layout["shapes"].append(_line(limit, horizontal=False))
        layout["annotations"].append(_note("budget", x=limit, y=1, yref="paper", xanchor="right", yanchor="top"))
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
    return {"data": data, "layout": _layout("trial", "loss (lower is better)")}


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
    return {"data": data, "layout": _layout("share of importance, %", "") | {"height": 90 + 34 * len(names)}}


def cost_by_step(breakdown: Breakdown) -> Figure:
    """Each call of the denoiser as a share of a call of the full run."""
    calls = breakdown.steps
    data = [
        {
            "type": "bar",
            "x": [call.index + 1 for call in calls],
            "y": [100 * call.relative for call in calls],
            "marker": {"color": "@blue"},
            "customdata": [
                [call.step + 1, call.height, call.width, "yes" if call.branches > 1 else "no", call.flops / 1e9]
                for call in calls
            ],
            "hovertemplate": "step %{customdata[0]}: %{y:.1f} % of a full call, %{customdata[4]:.4g} GFLOPs<br>"
            "latents %{customdata[1]} x %{customdata[2]}, guidance: %{customdata[3]}<extra></extra>",
            "showlegend": False,
        }
    ]
    layout = _layout("call of the denoiser", "% of a full call")
    layout["shapes"] = [_line(100, horizontal=True)]
    layout["yaxis"]["range"] = [0, 112]
    layout["annotations"] = [
        _note("a call of the full run", x=1, y=100, xref="paper", xanchor="right", yanchor="bottom")
    ]
    layout |= {"bargap": 0.15, "hovermode": "x"}
    return {"data": data, "layout": layout}


def cost_by_unit(groups: Sequence[GroupCost]) -> Figure:
    """All calls together: what the units take in the full run and under the policy."""
    shown = list(reversed(groups))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [group.name for group in shown],
            "x": values,
            "marker": {"color": color, "line": {"color": edge, "width": 1}},
            "hovertemplate": f"%{{y}}, {name}: %{{x:.4g}} GFLOPs<extra></extra>",
        }
        for name, color, edge, values in (
            ("policy", "@blue", "@blue", [group.flops / 1e9 for group in shown]),
            ("full run", "@grid", "@faint", [group.full_flops / 1e9 for group in shown]),
        )
    ]
    layout = _layout("GFLOPs a picture", "") | {"barmode": "group", "height": 130 + 44 * len(shown)}
    layout["legend"]["traceorder"] = "reversed"
    return {"data": data, "layout": layout}


# As the report's picture has them; patterns tell them apart without colours.
_ACTIONS = {
    Action.COMPUTE: ("@compute", "@compute", ""),
    Action.REUSE: ("@reuse-ground", "@reuse-line", "/"),
    Action.FORECAST: ("@forecast-ground", "@forecast-line", "x"),
    Action.RESIDUAL: ("@residual-ground", "@residual-dot", "."),
    Action.NOT_NEEDED: ("@page", "@grid", ""),
}
_SIZES = ("@orange", "@sky", "@green", "@purple")


def plan(picture: PlanPicture) -> Figure:
    """What the units do in each call of the denoiser: calls across, units down, latents and guidance on top."""

    def bars(name: str, color: str, line: str, pattern: str, stretches: Sequence[tuple[str, int, int, str]]) -> Any:
        """``stretches``: row, first and last call, and what is said of them."""
        return {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [row for row, *_ in stretches],
            "base": [first + 0.5 for _, first, _, _ in stretches],
            "x": [last + 1 - first for _, first, last, _ in stretches],
            "text": [said for *_, said in stretches],
            "textposition": "none",
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {
                "color": color,
                "line": {"color": line, "width": 1},
                "pattern": {"shape": pattern, "fgcolor": line, "size": 6, "solidity": 0.3},
            },
            "width": 0.8,
        }

    def calls(first: int, last: int) -> str:
        return f"call {first + 1}" if first == last else f"calls {first + 1} to {last + 1}"

    data, names = [], ["latents"]
    sizes = list(dict.fromkeys(span.text for span in picture.resolutions))
    for place, size in enumerate(sizes):
        color = "@faint" if place == len(sizes) - 1 else _SIZES[place % len(_SIZES)]
        spans = [
            ("latents", span.first, span.last, f"latents {size}, {calls(span.first, span.last)}")
            for span in picture.resolutions
            if span.text == size
        ]
        data.append(bars(f"latents {size}", color, color, "", spans))
    if picture.guidance:
        names.append("guidance")
        spans = [
            ("guidance", span.first, span.last, f"guidance, {calls(span.first, span.last)}")
            for span in picture.guided
            if span.text == "on"
        ]
        data.append(bars("guidance", "@vermillion", "@vermillion", "", spans))
    rows = []
    for row in picture.rows:
        name = row.label if row.units == 1 else f"{row.label} ({row.units})"
        name = name if len(name) <= _LONGEST_LABEL else f"…{name[1 - _LONGEST_LABEL :]}"
        # Labels are what plotly tells rows apart by.
        while name in names:
            name += " "
        names.append(name)
        rows.append((name, row))
    for action in picture.used:
        color, line, pattern = _ACTIONS[action]
        stretches = [
            (name, first, last, f"{row.label}: {WORDS[action]}, {calls(first, last)}")
            for name, row in rows
            for done, first, last in runs_of(row.actions)
            if done is action
        ]
        data.append(bars(WORDS[action], color, line, pattern, stretches))
    layout = _layout("call of the denoiser", "")
    layout["xaxis"] |= {"range": [0.5, len(picture.columns) + 0.5]}
    layout["yaxis"] |= {"categoryorder": "array", "categoryarray": names[::-1], "tickfont": {"size": 11}}
    return {"data": data, "layout": layout | {"barmode": "overlay", "height": 130 + 22 * len(names)}}


def losses_by_arm(tradeoff: Tradeoff) -> Figure:
    """The best of each way at every budget, on held-out prompts; the full run is zero."""
    data = []
    for place, arm in enumerate(ARMS):
        found = [(100 * level.share, level.winners[arm]) for level in tradeoff.rungs if arm in level.winners]
        losses = [best.quality.loss for _, best in found]
        text = [
            f"{arm}: {best.id.replace('<', '&lt;')}<br>{percent(best.relative)} of the FLOPs,"
            f" loss {best.quality.loss.value:.3f} ({best.quality.loss.low:.3f} to {best.quality.loss.high:.3f})"
            for _, best in found
        ]
        data.append(_with_intervals(arm, place, [share for share, _ in found], losses, text, _OF_ARMS[arm]))
    layout = _layout("budget, % of the full run's FLOPs", "held-out loss (lower is better)")
    layout["shapes"] = [_line(0, horizontal=True)]
    layout["annotations"] = [_note("full run", x=1, y=0, xref="paper", xanchor="right", yanchor="bottom")]
    return {"data": data, "layout": layout}


def differences_by_arm(tradeoff: Tradeoff) -> Figure:
    """Losses of the ways against each other, paired by prompt; below zero the first is better."""
    data = []
    for place, (a, b) in enumerate(PAIRS):
        found = [(100 * level.share, pair) for level in tradeoff.rungs if (pair := level.difference(a, b)) is not None]
        name = f"{a} \N{MINUS SIGN} {b}"
        text = [
            f"{name}: the same policy"
            if pair.same
            else f"{name}: {pair.loss.value:+.3f} ({pair.loss.low:+.3f} to {pair.loss.high:+.3f})"
            for _, pair in found
        ]
        look = _OF_ARMS[a] if b == FEWER else {"color": "@purple", "symbol": "triangle-up"}
        data.append(_with_intervals(name, place, [x for x, _ in found], [pair.loss for _, pair in found], text, look))
    layout = _layout("budget, % of the full run's FLOPs", "difference of losses (below 0: first better)")
    layout["shapes"] = [_line(0, horizontal=True)]
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


def _limit(run: Run, in_time: bool) -> float | None:
    if run.search_record is None:
        return None
    if in_time:
        return run.search_record.most_ms
    return (
        None
        if run.search_record.most_flops is None
        else 100 * run.search_record.most_flops / run.search_record.full.flops
    )


def _layout(x: str, y: str) -> dict[str, Any]:
    axis = {
        "gridcolor": "@grid",
        "zeroline": False,
        "linecolor": "@grid",
        "automargin": True,
        "title": {"standoff": 8},
        "fixedrange": False,
    }
    return {
        "height": 420,
        "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "@ink", "size": 13, "family": "system-ui, sans-serif"},
        "hoverlabel": {"bgcolor": "@card", "bordercolor": "@grid", "font": {"color": "@ink"}, "align": "left"},
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"},
        "xaxis": axis | {"title": {"text": x, "standoff": 8}},
        "yaxis": axis | {"title": {"text": y, "standoff": 8}},
    }


def _line(at: float, *, horizontal: bool) -> dict[str, Any]:
    along, across = ("x", "y") if horizontal else ("y", "x")
    return {
        "type": "line",
        f"{along}ref": "paper",
        f"{along}0": 0,
        f"{along}1": 1,
        f"{across}0": at,
        f"{across}1": at,
        "line": {"color": "@ink", "width": 1, "dash": "dash"},
    }


def _note(text: str, **where: Any) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "font": {"size": 12, "color": "@ink"}} | where
