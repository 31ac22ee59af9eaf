"""The search: an Optuna study over a family's knobs within a budget, its last round, and comparisons of policies.

The functions are :func:`autotune.tune` and :func:`autotune.compare`. Names come when they are asked for, so that a
study can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autotune.search.comparison import ComparedRun, Comparison, Pair
    from autotune.search.finalists import Contender, Finalists
    from autotune.search.interrupts import Interrupted
    from autotune.search.tune import TuneResult

__all__ = ["ComparedRun", "Comparison", "Contender", "Finalists", "Interrupted", "Pair", "TuneResult"]

_HOMES = {
    "ComparedRun": "comparison",
    "Comparison": "comparison",
    "Contender": "finalists",
    "Finalists": "finalists",
    "Interrupted": "interrupts",
    "Pair": "comparison",
    "TuneResult": "tune",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"autotune.search.{_HOMES[name]}"), name)
