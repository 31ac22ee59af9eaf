"""What a policy costs, before anything runs. Budgets are read without loading torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.core.lazy import attributes
from autotune.cost.budget import Budget, Limits, parse_budget, parse_bytes

if TYPE_CHECKING:
    from autotune.cost.hardware_profile import Profile, load_profile
    from autotune.cost.kept_pricers import price
    from autotune.cost.pricing import Pricer
    from autotune.cost.profile.measure import measure_profile
    from autotune.cost.weightless import pipeline_from_configs
    from autotune.cost.work import Cost

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

__getattr__ = attributes(
    __name__,
    {
        "Cost": "work",
        "Pricer": "pricing",
        "price": "kept_pricers",
        "Profile": "hardware_profile",
        "load_profile": "hardware_profile",
        "measure_profile": "profile.measure",
        "pipeline_from_configs": "weightless",
    },
)
