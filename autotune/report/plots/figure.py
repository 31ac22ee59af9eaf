"""A figure as plotly.js takes it, and the axes, lines and notes that all figures share.

Colours are names that the page resolves, for light and for dark.
"""

from __future__ import annotations

from typing import Any

Figure = dict[str, Any]
"""``data`` and ``layout``."""


def titled_layout(x: str, y: str) -> dict[str, Any]:
    """With the axes titled ``x`` and ``y``."""
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


def dashed_line(at: float, *, horizontal: bool) -> dict[str, Any]:
    """A dashed line across the whole figure."""
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


def note(text: str, **where: Any) -> dict[str, Any]:
    """A text at a place."""
    return {"text": text, "showarrow": False, "font": {"size": 12, "color": "@ink"}} | where
