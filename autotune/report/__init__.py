"""Showing what a search or a comparison found: tables, the verdict and the pictures."""

from __future__ import annotations

from autotune.report.comparison import Side, comparison_tables
from autotune.report.grid import Column, save_grid
from autotune.report.table import Row, results_table, verdict

__all__ = ["Column", "Row", "Side", "comparison_tables", "results_table", "save_grid", "verdict"]
