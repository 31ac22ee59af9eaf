"""The search: an Optuna study over a family's knobs within a budget, and the last round that picks the winner."""

from __future__ import annotations

from autotune.search.finalists import Contender, Finalists
from autotune.search.tune import Interrupted, TuneResult, tune

__all__ = ["Contender", "Finalists", "Interrupted", "TuneResult", "tune"]
