"""Where the FLOPs of a policy go."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.cost.breakdown import Breakdown, GroupCost
from autotune.report.plots.figure import Figure, dashed_line, note, titled_layout


def cost_by_step(breakdown: Breakdown) -> Figure:
    """Each call of the denoiser as a share of a call of the full run."""
    calls = breakdown.steps
    data = [
        {
            "type": "bar",
            "x": [call.index + 1 for call in calls],
            "y": [100 * call.relative for call in calls],
            "marker": {"color": "@blue"},
            "customdata": [[call.step + 1, call.height, call.width, call.guidance, call.flops / 1e9] for call in calls],
            "hovertemplate": "step %{customdata[0]}: %{y:.1f} % of a full call, %{customdata[4]:.4g} GFLOPs<br>"
            "latents %{customdata[1]} x %{customdata[2]}, guidance: %{customdata[3]}<extra></extra>",
            "showlegend": False,
        }
    ]
    layout = titled_layout("call of the denoiser", "% of a full call")
    layout["shapes"] = [dashed_line(100, horizontal=True)]
    layout["yaxis"]["range"] = [0, 112]
    layout["annotations"] = [
        note("a call of the full run", x=1, y=100, xref="paper", xanchor="right", yanchor="bottom")
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
    layout = titled_layout("GFLOPs a picture", "") | {"barmode": "group", "height": 130 + 44 * len(shown)}
    layout["legend"]["traceorder"] = "reversed"
    return {"data": data, "layout": layout}
