"""The search: an Optuna study over a family's knobs within a budget, its last round, and comparisons of policies."""

from __future__ import annotations

from autotune.search.compare import compare
from autotune.search.comparison import ComparedRun, Comparison, Pair
from autotune.search.finalists import Contender, Finalists
from autotune.search.interrupts import Interrupted
from autotune.search.tune import TuneResult, tune

__all__ = [
    "ComparedRun",
    "Comparison",
    "Contender",
    "Finalists",
    "Interrupted",
    "Pair",
    "TuneResult",
    "compare",
    "tune",
]
