"""What a policy costs, before anything runs. Budgets are read without loading torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from autotune.cost.budget import Budget, Limits, parse_budget, parse_bytes

if TYPE_CHECKING:
    from autotune.cost.measure import measure_profile
    from autotune.cost.pricing import Cost, Pricer, price
    from autotune.cost.profile import Profile, load_profile
    from autotune.cost.weightless import pipeline_from_configs

__all__ = [
    "Budget",
    "Cost",
    "Limits",
    "Pricer",
    "Profile",
    "load_profile",
    "measure_profile",
    "parse_budget",
    "parse_bytes",
    "pipeline_from_configs",
    "price",
]

_HOMES = {
    "Cost": "pricing",
    "Pricer": "pricing",
    "price": "pricing",
    "Profile": "profile",
    "load_profile": "profile",
    "measure_profile": "measure",
    "pipeline_from_configs": "weightless",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"autotune.cost.{_HOMES[name]}"), name)
