"""What every unit does in each call of the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.plan import Action
from autotune.report.plan_picture import WORDS, PlanPicture, runs_of
from autotune.report.plots.figure import Figure, titled_layout

_LONGEST_LABEL = 38

# As the report's picture has them; patterns tell them apart without colours.
_ACTIONS = {
    Action.COMPUTE: ("@compute", "@compute", ""),
    Action.REUSE: ("@reuse-ground", "@reuse-line", "/"),
    Action.FORECAST: ("@forecast-ground", "@forecast-line", "x"),
    Action.RESIDUAL: ("@residual-ground", "@residual-dot", "."),
    Action.NOT_NEEDED: ("@page", "@grid", ""),
}
# State, what is said of it, ground, pattern.
_GUIDANCE = (("on", "guidance", "@vermillion", ""), ("reused", "guidance reused", "@page", "/"))
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
        guidance = picture.guidance_name
        names.append(guidance)
        for state, said, color, pattern in _GUIDANCE:
            spans = [
                (guidance, span.first, span.last, f"{said}, {calls(span.first, span.last)}")
                for span in picture.guided
                if span.text == state
            ]
            if spans:
                data.append(bars(said, color, "@vermillion", pattern, spans))
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
    layout = titled_layout("call of the denoiser", "")
    layout["xaxis"] |= {"range": [0.5, len(picture.columns) + 0.5]}
    layout["yaxis"] |= {"categoryorder": "array", "categoryarray": names[::-1], "tickfont": {"size": 11}}
    return {"data": data, "layout": layout | {"barmode": "overlay", "height": 130 + 22 * len(names)}}
