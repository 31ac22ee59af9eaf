"""The search: an Optuna study over a family's knobs within a budget, its last round, and comparisons of policies.

The functions are :func:`autotune.tune` and :func:`autotune.compare`. Names come when they are asked for, so that a
study can be read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.lazy import attributes

if TYPE_CHECKING:
    from autotune.search.comparison import ComparedRun, Comparison, Pair
    from autotune.search.finalists import Contender, Finalists
    from autotune.search.interrupts import Interrupted
    from autotune.search.tune import TuneResult

__all__ = ["ComparedRun", "Comparison", "Contender", "Finalists", "Interrupted", "Pair", "TuneResult"]

__getattr__ = attributes(
    __name__,
    {
        "ComparedRun": "comparison",
        "Comparison": "comparison",
        "Contender": "finalists",
        "Finalists": "finalists",
        "Interrupted": "interrupts",
        "Pair": "comparison",
        "TuneResult": "tune",
    },
)
