"""What a policy costs, before anything runs."""

from __future__ import annotations

from autotune.cost.budget import Budget, parse_budget
from autotune.cost.price import Cost, Pricer, price

__all__ = ["Budget", "Cost", "Pricer", "parse_budget", "price"]
