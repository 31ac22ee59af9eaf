"""What a policy costs, before anything runs. Budgets are read without loading torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from autotune.cost.budget import Budget, parse_budget

if TYPE_CHECKING:
    from autotune.cost.pricing import Cost, Pricer, price

__all__ = ["Budget", "Cost", "Pricer", "parse_budget", "price"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("autotune.cost.pricing"), name)
