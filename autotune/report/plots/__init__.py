"""Interactive plots, as plotly.js takes them. Colours are names that the page resolves, for light and for dark."""

from __future__ import annotations

from autotune.report.plots.arms import differences_by_arm, losses_by_arm
from autotune.report.plots.candidates import MOST_BARS, frontier, importances, progress
from autotune.report.plots.costs import cost_by_step, cost_by_unit
from autotune.report.plots.figure import Figure
from autotune.report.plots.plan_chart import plan

__all__ = [
    "Figure",
    "MOST_BARS",
    "cost_by_step",
    "cost_by_unit",
    "differences_by_arm",
    "frontier",
    "importances",
    "losses_by_arm",
    "plan",
    "progress",
]
