"""A policy made explicit against one denoiser: what every unit does in every call. Pure data."""

from __future__ import annotations

from autotune.plan.compile import compile_plan
from autotune.plan.guidance import Guided
from autotune.plan.plan import Action, DenoiserCall, Group, Pattern, Plan, Sources, is_weighted
from autotune.plan.rules import Rule, resolve_rules, taken_at
from autotune.plan.sizes import MIN_SCALE, accepted_scales, latent_size

__all__ = [
    "Action",
    "DenoiserCall",
    "Group",
    "Guided",
    "MIN_SCALE",
    "Pattern",
    "Plan",
    "Rule",
    "Sources",
    "accepted_scales",
    "compile_plan",
    "is_weighted",
    "latent_size",
    "resolve_rules",
    "taken_at",
]
