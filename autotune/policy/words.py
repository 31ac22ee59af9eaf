"""A policy in words."""

from __future__ import annotations

from autotune.policy.document import PolicyDocument


def in_words(policy: PolicyDocument) -> str:
    """What the policy does, one short sentence per part."""
    parts = [f"{policy.steps} steps."]
    first = 1
    for stage in policy.resolution:
        parts.append(f"Steps {first} to {stage.until_step} at {stage.scale:.3g} of the side length.")
        first = stage.until_step + 1
    for rule in policy.cache:
        units = " and ".join(rule.units)
        between = f"forecast (order {rule.order})" if rule.order else "reused"
        parts.append(f"Output of {units} computed in {len(rule.compute_steps)} steps, {between} in the others.")
    if policy.guidance is not None:
        parts.append(f"Guidance in steps {policy.guidance.start_step + 1} to {policy.guidance.stop_step} only.")
    if len(parts) == 1:
        parts.append("Every step at full size, with guidance, nothing reused.")
    return " ".join(parts)
