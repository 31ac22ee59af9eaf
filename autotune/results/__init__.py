"""What a run found, as the JSON documents in its folder. Names come when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.core.lazy import attributes

if TYPE_CHECKING:
    from autotune.results.comparison import ComparedRun, Comparison, Pair
    from autotune.results.finalists import Contender, Finalists

__all__ = ["ComparedRun", "Comparison", "Contender", "Finalists", "Pair"]

__getattr__ = attributes(
    __name__,
    {
        "ComparedRun": "comparison",
        "Comparison": "comparison",
        "Contender": "finalists",
        "Finalists": "finalists",
        "Pair": "comparison",
    },
)
