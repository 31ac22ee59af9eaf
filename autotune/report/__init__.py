"""Showing what a search found: the table, the verdict and the pictures."""

from __future__ import annotations

from autotune.report.grid import Column, save_grid
from autotune.report.table import Row, results_table, verdict

__all__ = ["Column", "Row", "results_table", "save_grid", "verdict"]
