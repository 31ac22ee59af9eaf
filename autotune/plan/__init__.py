"""A policy made explicit against one denoiser: what every unit does in every call. Pure data."""

from __future__ import annotations

from autotune.plan.plan import (
    MIN_SCALE,
    Action,
    DenoiserCall,
    Group,
    Pattern,
    Plan,
    Rule,
    Sources,
    accepted_scales,
    compile_plan,
    latent_size,
    resolve_rules,
    taken_at,
)

__all__ = [
    "Action",
    "DenoiserCall",
    "Group",
    "MIN_SCALE",
    "Pattern",
    "Plan",
    "Rule",
    "Sources",
    "accepted_scales",
    "compile_plan",
    "latent_size",
    "resolve_rules",
    "taken_at",
]
