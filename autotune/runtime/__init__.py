"""Running an unmodified diffusers pipeline under a policy. Needs torch, diffusers and pydantic only."""

from __future__ import annotations

from autotune.runtime.apply import applied, apply_policies, apply_policy, remove_policy, tier
from autotune.runtime.models import denoiser_of, describe_model, full_policy

__all__ = [
    "applied",
    "apply_policies",
    "apply_policy",
    "denoiser_of",
    "describe_model",
    "full_policy",
    "remove_policy",
    "tier",
]
