"""Showing what a search or a comparison found: tables, the verdict and the page."""

from __future__ import annotations

from autotune.report.comparison import Side, comparison_tables
from autotune.report.table import Row, results_table
from autotune.report.verdict import ended_early, less_is_enough, verdict

__all__ = ["Row", "Side", "comparison_tables", "ended_early", "less_is_enough", "results_table", "verdict"]
